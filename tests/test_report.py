"""`python report.py`: the table over runs, its notes, curves and tests."""

import builtins
import math
import statistics

import pytest
from helpers.cli import assert_one_line_error, call, snapshot
from helpers.fake_runs import evaluation, write_run
from helpers.tables import as_json, table

import report
from running.curves import curve, draw_curves
from running.runs import read_run
from support.t_test import t_quantile, welch

MLE = {1: (9.00, 8.50), 2: (9.10, 8.70), 3: (9.05, 8.45)}  # seed -> NLL_oracle at the end, NLL_test at the end


SEQGAN = {1: (8.70, 8.60), 2: (8.75, 8.80), 3: (8.60, 8.65)}


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def table1(tmp_path):
    """Three finished MLE runs and three finished SeqGAN runs: NLL_test is lowest at 10, NLL_oracle at the end."""
    for seed, (oracle, test) in MLE.items():
        rows = [evaluation(0, 10.3, 8.52), evaluation(10, 9.5 + seed / 10, 7.0 + seed / 10), evaluation(120, oracle, test)]
        final = {"step": 120, "samples": 9, "nll_oracle": oracle + 0.5, "nll_test": test + 0.5}
        write_run(tmp_path / f"mle-{seed}", rows, final, seed=seed)
    for seed, (oracle, test) in SEQGAN.items():
        rows = [evaluation(0, 10.3, 8.52), evaluation(120, *MLE[seed]), evaluation(320, oracle, test)]
        final = {"step": 320, "samples": 9, "nll_oracle": oracle - 0.5, "nll_test": test - 0.5}
        write_run(tmp_path / f"seqgan-{seed}", rows, final, seed=seed, total_epochs=200)
    return tmp_path


def interval(values):
    half = t_quantile(0.95, len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
    return f"{statistics.fmean(values):.3f} ± {half:.3f}"


def test_rows_hold_means_and_intervals_over_seeds(table1, capsys):
    rows = table(capsys, "MLE=mle-*", "Seq-GAN=seqgan-*")
    assert list(rows) == ["MLE", "Seq-GAN"]
    assert rows["MLE"]["runs"] == "3"
    assert rows["MLE"]["NLL_oracle"] == interval([oracle for oracle, _ in MLE.values()]) == "9.050 ± 0.124"
    assert rows["MLE"]["NLL_test"] == interval([test for _, test in MLE.values()])
    assert rows["Seq-GAN"]["NLL_oracle"] == interval([oracle for oracle, _ in SEQGAN.values()])
    assert [rows["MLE"][name] for name in ("H(G)", "KL(G‖oracle)", "KL(oracle‖G)", "JSD")] == ["–"] * 4
    assert (rows["MLE"]["paper"], rows["MLE"]["difference"]) == ("9.038", "+0.012")
    assert (rows["Seq-GAN"]["paper"], rows["Seq-GAN"]["difference"]) == ("8.736", "-0.053")


def test_early_stopping_selects_by_nll_test_and_not_by_nll_oracle(table1, capsys):
    rows = table(capsys, "MLE=mle-*", "SeqGAN=seqgan-*", "--early_stopped", "mle")
    assert list(rows) == ["MLE", "MLE, early-stopped", "SeqGAN"]
    best = interval([9.6, 9.7, 9.8])
    assert rows["MLE"]["NLL_oracle, early-stopped"] == rows["MLE, early-stopped"]["NLL_oracle"] == best
    assert rows["MLE"]["NLL_test, early-stopped"] == rows["MLE, early-stopped"]["NLL_test"] == interval([7.1, 7.2, 7.3])
    assert rows["MLE, early-stopped"]["paper"] == "–"
    # of SeqGAN's evaluations, those of seeds 1 and 3 are lowest after the pre-training, of seed 2 before it
    assert rows["SeqGAN"]["NLL_oracle, early-stopped"] == interval([9.00, 10.3, 9.05])


def test_final_takes_the_evaluation_at_the_end(table1, capsys):
    rows = table(capsys, "MLE=mle-*", "SeqGAN=seqgan-*", "--final")
    assert rows["MLE"]["NLL_oracle"] == interval([oracle + 0.5 for oracle, _ in MLE.values()])
    assert rows["SeqGAN"]["NLL_test"] == interval([test - 0.5 for _, test in SEQGAN.values()])
    assert rows["MLE"]["NLL_oracle, early-stopped"] == interval([9.6, 9.7, 9.8])


def test_measures_that_some_runs_lack_are_averaged_over_the_others(tmp_path, capsys):
    measures = dict(entropy_g=6.0, kl_g_oracle=3.0, kl_oracle_g=2.5, jsd=0.4)
    write_run(tmp_path / "a-1", [evaluation(120, 9.0, 8.0)], {}, seed=1)
    write_run(tmp_path / "a-2", [evaluation(120, 9.2, 8.0, **measures, jsd_error=0.1)], {}, seed=2)
    write_run(tmp_path / "a-3", [evaluation(120, 9.2, 8.0, **{**measures, "jsd": math.nan, "kl_g_oracle": 3.2})], {}, seed=3)
    row = table(capsys, "a=a-?")["a"]
    assert row["KL(G‖oracle)"] == f"{interval([3.0, 3.2])} (of 2)"
    assert row["H(G)"] == "6.000 ± 0.000 (of 2)"
    assert row["JSD"] == "0.400 (of 1)"
    found = as_json(capsys, "a=a-?")["rows"][0]
    assert found["end"]["jsd"] == {"mean": 0.4, "interval": None, "runs": 1}
    assert found["runs"][1]["end"]["jsd_error"] == 0.1
    assert found["runs"][2]["end"]["jsd"] is None


def test_one_run_has_no_interval(table1, capsys):
    row = table(capsys, "mle-1")["mle-1"]
    assert (row["runs"], row["NLL_oracle"], row["paper"]) == ("1", "9.000", "–")


def test_json_holds_the_numbers_of_the_table(table1, capsys):
    found = as_json(capsys, "MLE=mle-*", "SeqGAN=seqgan-*", "--ttest", "SeqGAN", "MLE")
    mle = found["rows"][0]
    assert mle["end"]["nll_oracle"]["mean"] == pytest.approx(9.05)
    assert mle["end"]["nll_oracle"]["interval"] == pytest.approx(4.302653 * 0.05 / math.sqrt(3), rel=1e-6)
    assert mle["early_stopped"]["nll_test"]["mean"] == pytest.approx(7.2)
    assert mle["difference"] == pytest.approx(0.012)
    assert [each["seed"] for each in mle["runs"]] == [1, 2, 3]
    assert [each["early_stopped"]["step"] for each in mle["runs"]] == [10, 10, 10]
    t, freedom, p = welch([oracle for oracle, _ in SEQGAN.values()], [oracle for oracle, _ in MLE.values()])
    (test,) = found["ttests"]
    assert (test["t"], test["freedom"], test["p"]) == pytest.approx((t, freedom, p))
    assert test["difference"] == pytest.approx(8.683333 - 9.05, abs=1e-6)


def test_t_test_between_rows(table1, capsys):
    assert call(report.main, "MLE=mle-*", "SeqGAN=seqgan-*", "--early_stopped", "MLE", "--ttest", "mle", "Seq-GAN") == 0
    t, freedom, p = welch([oracle for oracle, _ in MLE.values()], [oracle for oracle, _ in SEQGAN.values()])
    line = f"MLE against SeqGAN: difference +0.367, t = {t:.3f}, {freedom:.1f} degrees of freedom, p = {p:.2g}"
    assert line in capsys.readouterr().out
    tests = as_json(capsys, "MLE=mle-*", "SeqGAN=seqgan-*", "--final", "--ttest", "MLE", "SeqGAN")["ttests"]
    assert tests[0]["difference"] == pytest.approx(9.05 - 8.683333 + 1.0, abs=1e-6)


def test_t_test_needs_two_runs_and_known_rows(table1, capsys):
    assert call(report.main, "MLE=mle-*", "SeqGAN=seqgan-1", "--ttest", "MLE", "SeqGAN") == 2
    assert_one_line_error(capsys, "SeqGAN has 1")
    assert call(report.main, "MLE=mle-*", "--ttest", "MLE", "PG-BLEU") == 2
    assert_one_line_error(capsys, "no row 'PG-BLEU'", "MLE")
    assert call(report.main, "MLE=mle-*", "--ttest", "MLE") == 2
    assert_one_line_error(capsys, "--ttest")


def test_a_run_counts_once_and_shared_seeds_are_noted(table1, capsys):
    assert table(capsys, "MLE=mle-*", "MLE=./mle-1")["MLE"]["runs"] == "3"
    assert as_json(capsys, "MLE=mle-*")["notes"] == [
        "MLE: the paper's number is for its authors' oracle (--oracle_params), these runs have another"
    ]
    write_run(table1 / "again", [evaluation(120, 9.0, 8.0)], {}, seed=2)
    remarks = as_json(capsys, "runs=mle-*", "runs=again")["notes"]
    assert remarks == ["runs: several runs have the same seed, so that they are not independent"]


def test_unfinished_runs_are_noted(table1, capsys):
    rows = [evaluation(0, 10.0, 8.5), evaluation(50, 9.3, 8.4)]
    write_run(table1 / "mle-4", rows, seed=4, total_epochs=200)
    with (table1 / "mle-4/metrics.jsonl").open("a") as file:
        file.write('{"phase": "pretrain_g", "epoch": 60, "st')  # in the middle of a line
    found = as_json(capsys, "runs=mle-?", "--final")
    (remark,) = found["notes"]
    assert "mle-4 is unfinished, evaluated up to epoch 50 of 320" in remark
    assert "stands for final.json" in remark
    assert found["rows"][0]["end"]["nll_oracle"]["mean"] == pytest.approx((9.5 + 9.6 + 9.55 + 9.3) / 4)
    assert call(report.main, "runs=mle-?") == 0
    assert "evaluated up to epoch 50 of 320" in capsys.readouterr().out


def test_runs_that_end_at_different_epochs_are_noted(table1, capsys):
    (remark,) = as_json(capsys, "all=mle-1", "all=seqgan-2")["notes"]
    assert remark == "all: the runs end at different epochs: 120, 320"


def test_different_oracles_are_noted(tmp_path, capsys):
    settings = ({"oracle_seed": None}, {"oracle_seed": None}, {"oracle_seed": 1})
    for seed, args in enumerate(settings, start=1):
        write_run(tmp_path / f"r-{seed}", [evaluation(120, 9.0, 8.0)], {}, seed=seed, **args)
    assert as_json(capsys, "a=r-1", "a=r-3")["notes"] == []
    (remark,) = as_json(capsys, "a=r-1", "a=r-2")["notes"]
    assert "different oracles" in remark
    for seed in (1, 2):
        write_run(tmp_path / f"tunes-{seed}", [evaluation(120, 9.0, 8.0)], {}, seed=seed, oracle_seed=None, dataset="Nottingham")
    assert as_json(capsys, "tunes-*")["notes"] == []


def test_the_papers_number_is_found_for_any_spelling_of_a_name(tmp_path, capsys):
    write_run(tmp_path / "r", [evaluation(0, 10.0, 8.5)], {}, oracle_params="oracle.npz")
    names = {
        **{"RANDOM": "10.310", "mle": "9.038", "Scheduled-sampling": "8.985", "scheduled sampling": "8.985", "PGBLEU": "8.946"},
        **{"PG-BLEU": "8.946", "Seq-GAN": "8.736", "constant": "–", "g 100, d 1, k 10": "8.940", "g 1, d 5, k 3": "8.730"},
    }
    rows = table(capsys, *(f"{name}=r" for name in names))
    assert {name: row["paper"] for name, row in rows.items()} == names
    assert rows["RANDOM"]["difference"] == "-0.310"
    assert as_json(capsys, "MLE=r", "g 100, d 1, k 10=r")["notes"] == ["g 100, d 1, k 10: unstable in the paper"]


def test_other_sizes_than_the_papers_are_noted(tmp_path, capsys):
    write_run(tmp_path / "r", [evaluation(0, 3.0, 2.5)], {}, vocab_size=50, oracle_params="oracle.npz")
    (remark,) = as_json(capsys, "MLE=r", "SeqGAN=r", "other=r")["notes"]
    assert remark.startswith("MLE; SeqGAN: ")
    assert "V = 5000 and T = 20" in remark
    write_run(tmp_path / "end", [evaluation(0, 3.0, 2.5)], {**evaluation(0, 3.0, 2.5), "auc_d": 0.6}, vocab_size=50)
    assert any("V = 5000 and T = 20" in note for note in as_json(capsys, "MLE=end", "--final")["notes"])


def test_curves_are_medians_over_the_steps_that_all_runs_have(tmp_path):
    one = write_run(tmp_path / "c-1", [evaluation(0, 10.0, 8.0), evaluation(5, 9.0, 7.5), evaluation(10, 8.0, 7.0)], {})
    two = write_run(tmp_path / "c-2", [evaluation(0, 11.0, 8.0), evaluation(10, 9.0, math.inf)], seed=2)
    collapsed = write_run(tmp_path / "c-3", [evaluation(0, 11.0, 8.0), evaluation(10, 90.0, 80.0)], seed=3)
    found = [run for _, runs in report.group_runs([str(one), str(two), str(collapsed)]) for run in runs]
    assert curve(found[:2], "nll_oracle") == [(0, 10.5, 10.0, 11.0), (10, 8.5, 8.0, 9.0)]
    assert curve(found, "nll_oracle") == [(0, 11.0, 10.0, 11.0), (10, 9.0, 8.0, 90.0)]
    assert curve(found[:2], "nll_test") == [(0, 8.0, 8.0, 8.0)]
    assert curve(found, "jsd") == []


def test_curves_are_drawn_with_their_bands_and_the_start_of_the_adversarial_phase(table1, capsys, monkeypatch):
    pytest.importorskip("matplotlib")
    from matplotlib.axes import Axes

    drawn = {"plot": [], "fill_between": [], "axvline": []}
    for name, calls in drawn.items():
        original = getattr(Axes, name)

        def keep(self, *args, original=original, calls=calls, **kwargs):
            calls.append(args)
            return original(self, *args, **kwargs)

        monkeypatch.setattr(Axes, name, keep)
    assert call(report.main, "MLE=mle-*", "SeqGAN=seqgan-*", "--early_stopped", "MLE", "--curves", "c.png") == 0
    assert (table1 / "c.png").read_bytes().startswith(b"\x89PNG")
    assert len(drawn["plot"]) == len(drawn["fill_between"]) == 4  # two rows in two panels
    steps, medians = drawn["plot"][1]
    assert (steps, medians) == ((0, 120, 320), pytest.approx((10.3, 9.05, 8.70)))
    _, low, high = drawn["fill_between"][1]
    assert (low, high) == ((10.3, 9.00, 8.60), (10.3, 9.10, 8.75))
    assert drawn["axvline"] == [(120,), (120,)]
    assert "| MLE, early-stopped |" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["$\\x$", "a$b", "no \udcff text", "{", "a" * 5000], ids=range(5))
def test_any_name_of_a_row_can_be_drawn(name, tmp_path, capsys, recwarn):
    pytest.importorskip("matplotlib")
    rows = [evaluation(step, 10.0, 8.0) for step in (0, 120)] + [evaluation(130, 1e149, 8.0)]
    draw_curves([(name, [read_run(write_run(tmp_path / "r", rows))])], tmp_path / "c.png")
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")
    assert [str(warning.message) for warning in recwarn] == []


def test_curves_without_any_value_are_drawn_in_silence(tmp_path, recwarn):
    pytest.importorskip("matplotlib")
    rows = [evaluation(step, math.nan, math.inf) for step in (0, 130)]
    draw_curves([("a", [read_run(write_run(tmp_path / "r", rows))])], tmp_path / "c.png")
    assert [str(warning.message) for warning in recwarn] == []


def test_without_matplotlib_only_the_curves_are_refused(table1, capsys, monkeypatch):
    original = builtins.__import__

    def without(name, *args, **kwargs):
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return original(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    assert call(report.main, "mle-1") == 0
    capsys.readouterr()
    assert call(report.main, "mle-1", "--curves", "c.png") == 2
    assert_one_line_error(capsys, "matplotlib", "requirements-dev.txt")


def test_the_authors_log_counts_epochs_in_each_phase(tmp_path, capsys):
    rows = [evaluation(0, 10.17164, 8.5), evaluation(5, 9.429391, 8.4), evaluation(120, 9.0, 8.4), evaluation(125, 8.9, 8.4)]
    write_run(tmp_path / "a/mle-1", rows, {}, total_epochs=200)
    write_run(tmp_path / "b/mle-1", rows[:2], {}, seed=2)
    write_run(tmp_path / "b/late", rows[3:], {}, seed=3)
    assert call(report.main, "a/mle-1", "b/mle-1", "late=b/*", "--authors_log", "out/logs") == 0
    logs = {p.name: p.read_text() for p in (tmp_path / "out/logs").iterdir()}
    pretraining = "pre-training...\nepoch:\t0\tnll:\t10.1716\nepoch:\t5\tnll:\t9.42939\n"
    whole = pretraining + "epoch:\t120\tnll:\t9\nadversarial training...\nepoch:\t5\tnll:\t8.9\n"
    assert logs.pop("late-experiment-log.txt") == "adversarial training...\nepoch:\t5\tnll:\t8.9\n"
    ends = {"a-mle-1-experiment-log.txt": whole, "b-mle-1-experiment-log.txt": pretraining}
    assert {end: text for end in ends for name, text in logs.items() if name.endswith(end)} == ends
    assert len(logs) == 2


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ([], "RUN"),
        (["mle-1", "--curve", "x.png"], "--curve"),
        (["mle-1", "--curves", "x.pdf"], ".png"),
        (["mle-1", "--curves", "none/x.png"], "none"),
        (["mle-1", "--authors_log", "mle-1/config.json"], "config.json"),
        (["mle-1", "--early_stopped", "SeqGAN"], "no row 'SeqGAN'"),
    ],
)
def test_bad_flags_end_with_one_line(flags, words, table1, capsys):
    before = snapshot(table1)
    assert call(report.main, *flags) == 2
    assert_one_line_error(capsys, words)
    assert snapshot(table1) == before


def test_music_has_no_nll_of_an_oracle(tmp_path, capsys):
    row = evaluation(0, 0, 2.5)
    del row["nll_oracle"]
    write_run(tmp_path / "tunes", [row], {}, dataset="Nottingham")
    found = table(capsys, "SeqGAN=tunes", "--authors_log", "logs")["SeqGAN"]
    assert (found["NLL_oracle"], found["NLL_test"], found["paper"]) == ("–", "2.500", "–")
    assert as_json(capsys, "SeqGAN=tunes")["notes"] == []
    assert (tmp_path / "logs/tunes-experiment-log.txt").read_text() == ""
