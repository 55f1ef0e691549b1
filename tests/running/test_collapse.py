"""When the generator is said to collapse."""

from running.collapse import CollapseWatch


def test_a_rise_of_nll_test_above_its_lowest_value_is_said_once():
    watch = CollapseWatch()
    watch.before({"nll_test": 3.0})
    watch.before({"nll_test": 4.0})  # overfit in pre-training: not the policy's doing
    assert watch.look({"nll_test": 4.4}) is None
    assert watch.look({"nll_test": 3.8}) is None
    assert watch.look({"nll_test": 4.3}) is None
    assert "0.51 above its lowest" in watch.look({"nll_test": 4.31})
    assert watch.look({"nll_test": 9.0}) is None


def test_few_tokens_are_a_collapse_where_real_sequences_use_many():
    assert CollapseWatch().look({"nll_test": 1.0, "distinct_tokens": 10}) is None
    assert CollapseWatch().look({"nll_test": 1.0, "distinct_tokens": 10, "real_distinct_tokens": 30}) is None
    assert "9 different tokens" in CollapseWatch().look({"nll_test": 1.0, "distinct_tokens": 9, "real_distinct_tokens": 30})


def test_a_watch_goes_on_where_it_was_saved():
    watch = CollapseWatch()
    watch.before({"nll_test": 3.0})
    watch.look({"nll_test": 9.0})
    assert CollapseWatch(**watch.state_dict()).look({"nll_test": 99.0}) is None
