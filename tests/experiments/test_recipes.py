"""recipes.sh: which runs it makes from which, and its table."""

import pytest
from helpers.cli import flag_value
from helpers.tables import table_cells


@pytest.mark.parametrize("kind", [("oracle",), ("fixed",), ("music", "tunes.zip"), ("text", "lines.txt")])
def test_every_row_begins_from_its_own_mle_run_and_has_its_preset(shell, calls, kind):
    done = shell("recipes.sh", *kind, "--threads", "1", SEEDS="1 2")
    assert done.returncode == 0, done.stderr
    found = {name.rpartition("/")[2]: flags for name, flags in calls()}
    rows = ("mle", "seqgan", "tuned", "tuned-pg", "tuned-shuffled", "tuned-continued")
    assert list(found) == [f"{row}-{seed}" for seed in (1, 2) for row in rows]
    for name, flags in found.items():
        row, _, seed = name.rpartition("-")
        faithful = "paper" if kind[0] == "fixed" else "original"
        assert flag_value(flags, "--preset") == ("tuned" if row.startswith("tuned") else faithful)
        assert (flag_value(flags, "--seed"), flag_value(flags, "--threads")) == (seed, "1")
        source = {"mle": None, "tuned": None, "seqgan": f"logs/recipes-{kind[0]}/mle-{seed}"}
        assert flag_value(flags, "--start_from") == source.get(row, f"logs/recipes-{kind[0]}/tuned-{seed}")
    assert flag_value(found["tuned-shuffled-1"], "--reward") == "shuffled"
    assert flag_value(found["tuned-continued-1"], "--mle_share") == "1"
    assert [flags for name, flags in found.items() if flag_value(flags, "--reward") and "shuffled" not in name] == []
    names = [cells[0] for cells in table_cells(done.stdout)][2:]
    assert names[2:6] == ["tuned", "tuned: best.pt, resampled", "tuned, one judge", "tuned, one judge: best.pt, resampled"]
    again = shell("recipes.sh", *kind, "--threads", "1", SEEDS="1 2")
    assert (again.returncode, calls()) == (0, [])


def test_the_faithful_rows_can_be_left_out(shell, calls):
    assert shell("recipes.sh", "oracle", FAITHFUL="").returncode == 0
    assert not [name for name, _ in calls() if "mle-" in name or "seqgan" in name]


@pytest.mark.parametrize("flags", [(), ("tunes",), ("music",), ("oracle", "--smoke")])
def test_what_is_not_known_or_a_file_that_is_missing_stops_the_script(flags, shell, calls):
    done = shell("recipes.sh", *flags)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert calls() == []


@pytest.mark.parametrize(("script", "flags"), [("poems.sh", ()), ("poems.sh", ("--smoke",)), ("speeches.sh", ("--smoke", "a.txt"))])
def test_the_scripts_on_text_say_what_comes_first(script, flags, shell, calls):
    done = shell(script, *flags)
    assert (done.returncode, calls()) == (2, [])
    assert done.stderr.startswith(f"usage: {script}") and done.stderr.count("\n") == 1
