"""The declaration of a sweep: which runs it means, and what is refused before anything is started."""

import json

import pytest
from helpers.fake_runs import evaluation, write_run

from running.run_folder import FINAL, JUDGES_NUMBERS, LAST
from running.sweep_plan import find_runs_of, parse_rows, parse_seeds, plan_runs
from support.errors import UserError


def test_seeds_are_numbers_and_ranges_with_both_ends():
    assert parse_seeds("1-3,7") == [1, 2, 3, 7]
    assert parse_seeds("5") == [5]
    assert parse_seeds("0-1, 9") == [0, 1, 9]
    assert parse_seeds("4-4") == [4]


@pytest.mark.parametrize("text", ["", "a", "3-1", "1,,2", "1-", "-1", "1-2-3", "1,1", "1-3,2", "1.5", "9" * 19, "1-999999999", "²"])
def test_bad_seeds_are_refused(text):
    with pytest.raises(UserError, match="--seeds"):
        parse_seeds(text)


def test_rows_are_every_combination_of_the_settings(tmp_path):
    rows = parse_rows("mine", ["reward=bleu,constant", "d_steps=1,5"], ["--preset", "smoke"])
    assert [row.name for row in rows] == [f"reward-{r}-d_steps-{d}" for r in ("bleu", "constant") for d in (1, 5)]
    assert [(row.given["reward"], row.given["d_steps"]) for row in rows] == [
        ("bleu", 1),
        ("bleu", 5),
        ("constant", 1),
        ("constant", 5),
    ]
    assert {row.given["preset"] for row in rows} == {"smoke"}
    assert rows[1].title == "reward bleu, d_steps 5"
    runs = plan_runs(rows, [3, 1], tmp_path)
    assert [run.name for run in runs[:4]] == [f"{row.name}-3" for row in rows]
    assert len({run.folder for run in runs}) == len({run.eval_folder for run in runs}) == 8
    assert runs[4].eval_folder == tmp_path / "eval" / "reward-bleu-d_steps-1-1"


def test_without_settings_the_row_has_the_name_of_the_sweep(tmp_path):
    (row,) = parse_rows("mine", [], [])
    assert [run.name for run in plan_runs([row], [1, 2], tmp_path)] == ["mine-1", "mine-2"]


def test_rows_can_have_flags_of_their_own_which_win_over_the_common_ones():
    words = "--g_steps 2 --row a --g_steps 3 --row b --reward random".split()
    one, two = parse_rows("mine", [], words)
    assert (one.name, one.given) == ("a", {"g_steps": 3})
    assert (two.name, two.given) == ("b", {"g_steps": 2, "reward": "random"})
    both = parse_rows("mine", ["d_steps=1,2"], words)
    assert [row.name for row in both] == ["a-d_steps-1", "a-d_steps-2", "b-d_steps-1", "b-d_steps-2"]


def test_values_with_commas_are_parted_by_semicolons():
    rows = parse_rows("mine", ["d_filters=1x4,2x4;3x5"], [])
    assert [row.given["d_filters"] for row in rows] == [[[1, 4], [2, 4]], [[3, 5]]]
    assert rows[0].name == "d_filters-1x4_2x4"
    assert len(parse_rows("mine", ["data_path=a,b.txt;c"], ["--dataset", "Text"])) == 2
    assert [row.given["kl_weight"] for row in parse_rows("mine", ["kl_weight=0,1e-3"], [])] == [0, 0.001]


@pytest.mark.parametrize(
    ("settings", "words", "told"),
    [
        (["reward"], [], "FLAG=VALUE"),
        (["no_such=1"], [], "no flag --no_such"),
        (["reward="], [], "missing"),
        (["d_steps=1,,2"], [], "missing"),
        (["d_steps=1,1"], [], "twice"),
        (["d_steps=1", "d_steps=2"], [], "twice"),
        (["reward=bleu,nonsense"], [], "nonsense"),
        (["data_path=a/b;a:b"], [], "the name data_path-a_b"),
        ([], ["--no_such", "1"], "--no_such"),
        ([], ["word"], "word"),
        ([], ["--total_epochs", "many"], "many"),
        ([], ["--help"], "--help"),
        ([], ["--device", "cuda:1"], "CUDA_VISIBLE_DEVICES"),
        ([], ["--evaluate", "False"], "--evaluate"),
        ([], ["--row"], "--row"),
        ([], ["--row", "a/b"], "a/b"),
        ([], ["--row", "a", "--row", "a"], "the name a"),
        ([], ["--row", "a", "--seed", "2"], "--seeds"),
        *(([], [f"--{name}", "1"], f"--{name}") for name in ("seed", "log_dir", "eval_log_dir", "run_name", "resume", "overwrite")),
        (["seed=1,2"], [], "--seeds"),
        ([], ["--is_train", "False"], "--is_train"),
    ],
)
def test_what_no_run_can_have_is_refused(settings, words, told):
    with pytest.raises(UserError) as error:
        parse_rows("mine", settings, words)
    assert told in str(error.value)
    assert "\n" not in str(error.value)


def test_the_seed_takes_its_place_in_start_from_and_a_source_that_is_nowhere_is_refused(tmp_path):
    (tmp_path / "mle-2").mkdir()
    (row,) = parse_rows("mine", [], ["--start_from", f"{tmp_path}/mle-{{seed}}"])
    (run,) = plan_runs([row], [2], tmp_path / "runs")
    assert run.source == f"{tmp_path}/mle-2"
    with pytest.raises(UserError, match="mle-3: no such run"):
        plan_runs([row], [2, 3], tmp_path / "runs")
    for name in (FINAL, LAST):  # it has begun: its source may be gone
        (tmp_path / f"runs-{name}/mine-3").mkdir(parents=True)
        (tmp_path / f"runs-{name}/mine-3" / name).touch()
        plan_runs([row], [3], tmp_path / f"runs-{name}")
    rows = parse_rows("mine", [], ["--row", "late", "--start_from", f"{tmp_path}/x/mle-{{seed}}", "--row", "mle"])
    assert len(plan_runs(rows, [1], tmp_path / "x")) == 2  # a run of the sweep itself


def test_too_many_runs_are_refused(tmp_path):
    rows = parse_rows("mine", [f"d_steps={','.join(map(str, range(1, 12)))}"], [])
    with pytest.raises(UserError, match="more than"):
        plan_runs(rows, range(1, 1000), tmp_path)


def test_the_table_has_the_runs_of_a_row_and_not_those_of_a_row_whose_name_goes_on(tmp_path):
    rows = parse_rows("mine", [], ["--row", "a", "--row", "a-1"])
    for name in ("a-2", "a-10", "a-1-2", "a-1-3", "a-x"):
        write_run(tmp_path / name, [evaluation(0, 1.0, 6.0)])
    (tmp_path / "a-3").mkdir()  # not begun
    write_run(tmp_path / "a-4", [])  # killed before its first evaluation
    assert [[path.name for path in find_runs_of(row, tmp_path)] for row in rows] == [["a-2", "a-10"], ["a-1-2", "a-1-3"]]


def test_a_run_with_judges_is_finished_when_they_are_trained(tmp_path):
    rows = parse_rows("mine", [], "--preset tuned --row judged --row own --judges 0 --row one --preset smoke --judges 1".split())
    runs = plan_runs(rows, [1], tmp_path)
    for run in runs:
        run.folder.mkdir()
        for name in (LAST, FINAL):
            (run.folder / name).touch()
    assert [run.finished for run in runs] == [False, True, False]
    assert [run.interrupted for run in runs] == [True, False, True]
    for run in runs:
        (run.folder / JUDGES_NUMBERS).touch()
    assert all(run.finished for run in runs)


def test_a_run_that_was_made_with_other_flags_is_told(tmp_path):
    (row,) = parse_rows("mine", [], "--preset smoke --batch_size 8 --device cpu --d_filters 1x4".split())
    (run,) = plan_runs([row], [1], tmp_path)
    assert run.differs() is None
    write_run(run.folder, [], preset="smoke", batch_size=8, device="cuda", d_filters=[[1, 4]])
    assert run.differs() is None  # another device is no other experiment
    config = json.loads((run.folder / "config.json").read_text())
    config["args"]["batch_size"] = 16
    (run.folder / "config.json").write_text(json.dumps(config))
    assert run.differs() == "--batch_size 16, not 8"
