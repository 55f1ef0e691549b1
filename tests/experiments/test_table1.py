"""table1.sh: its runs, and the table with the paper's numbers beside."""

from helpers.cli import flag_value
from helpers.tables import table_cells

TABLE1 = {
    "random": {"--pretrain_g_epochs": "0", "--total_epochs": "0"},
    "mle": {"--total_epochs": "0"},
    "scheduled": {"--scheduled_sampling": "0.002", "--total_epochs": "0"},
    "pg-bleu": {"--reward": "bleu", "--start_from": "logs/table1/mle-{}"},
    "seqgan": {"--start_from": "logs/table1/mle-{}"},
    "reward-constant": {"--reward": "constant", "--start_from": "logs/table1/mle-{}"},
    "reward-random": {"--reward": "random", "--start_from": "logs/table1/mle-{}"},
}


OF_A_ROW = (*"--scheduled_sampling --reward --start_from --pretrain_g_epochs --total_epochs --pretrain_d_epochs".split(),)


def test_table1_trains_each_row_once_a_seed(shell, calls):
    done = shell("table1.sh", SEEDS="1 3")
    assert done.returncode == 0, done.stderr
    found = calls()
    assert [name for name, _ in found] == [f"logs/table1/{row}-{seed}" for seed in (1, 3) for row in TABLE1]
    for name, flags in found:
        row, seed = name.removeprefix("logs/table1/").rsplit("-", 1)
        assert {k: flag_value(flags, k) for k in OF_A_ROW if k in flags} == {k: v.format(seed) for k, v in TABLE1[row].items()}
        assert (flag_value(flags, "--preset"), flag_value(flags, "--seed"), flag_value(flags, "--oracle_seed")) == (
            "paper",
            seed,
            "1",
        )
        assert flag_value(flags, "--eval_log_dir") == f"logs/table1/eval/{row}-{seed}"
        assert "--oracle_params" not in flags and "--resume" not in flags and "--overwrite" not in flags


def test_table1_prints_the_papers_numbers_and_tests_against_seqgan(shell):
    one = shell("table1.sh").stdout
    rows = table_cells(one)
    papers = {row[0]: row[-2] for row in rows[2:]}
    assert papers == {
        **{"Random": "10.310", "MLE": "9.038", "MLE, early-stopped": "–", "Scheduled sampling": "8.985", "PG-BLEU": "8.946"},
        **{"SeqGAN": "8.736", "constant reward": "–", "random reward": "–"},
    }
    assert rows[3][2] == "9.100" and rows[4][2] == "10.100"  # MLE at the end, and where NLL_test was lowest
    assert "Welch" not in one
    two = shell("table1.sh", SEEDS="2").stdout
    assert "| SeqGAN | 2 | 9.150 ± 0.635" in two  # both seeds are in the folder
    three = shell("table1.sh", SEEDS="1 2").stdout
    assert three.count("Welch's t-test") == 6
    assert "MLE, early-stopped against SeqGAN: difference +1.000" in three


def test_flags_and_oracle_are_passed_on_but_do_not_change_what_a_row_is(shell, calls):
    flags = ["--pretrain_g_epochs", "20", "--total_epochs", "30", "--seed", "9", "--device", "cpu", "--log_dir", "mine"]
    assert shell("table1.sh", *flags, ORACLE="my oracle.npz", RUNS="my runs").returncode == 0
    found = dict(calls())
    assert list(found) == [f"my runs/{row}-1" for row in TABLE1]
    for flags in found.values():
        given = (flag_value(flags, name) for name in ("--oracle_params", "--seed", "--device"))
        assert tuple(given) == ("my oracle.npz", "1", "cpu")
        assert "--oracle_seed" not in flags
    epochs = {name[8:-2]: (flag_value(f, "--pretrain_g_epochs"), flag_value(f, "--total_epochs")) for name, f in found.items()}
    assert epochs.pop("random") == ("0", "0")
    assert epochs.pop("mle") == epochs.pop("scheduled") == ("20", "0")
    assert set(epochs.values()) == {("20", "30")}
