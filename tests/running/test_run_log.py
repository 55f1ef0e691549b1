"""What TensorBoard's page of the evaluations opens with."""

import pytest
from helpers.cli import folders, run, scalars
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2, metadata

from running.run_log import chart


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    """The evaluation folder of a short run."""
    folder = tmp_path_factory.mktemp("evaluated")
    short = "--pretrain_g_epochs 2 --pretrain_d_epochs 1 --total_epochs 1 --eval_every 1".split()
    assert run(*short, *folders(folder)) == 0
    return folder / "eval"


def test_the_page_opens_with_both_nlls(evaluated):
    """TensorBoard sorts groups by name: a measure in a group before `nll` would push the answer down."""
    tags = sorted(scalars(evaluated))
    assert tags[:2] == ["nll", "nll_test"]
    assert {tag.partition("/")[0] for tag in tags[2:]} == {"oracle", "samples"}


def test_measures_of_real_data_have_a_group_of_their_own():
    assert chart("real_bleu4") == "real/bleu4"
    assert chart("bleu4") == "samples/bleu4"


def test_one_chart_holds_both_nlls_and_the_oracles_entropy(evaluated):
    events = EventAccumulator(str(evaluated)).Reload()
    layout = layout_pb2.Layout.FromString(events.Tensors(metadata.CONFIG_SUMMARY_TAG)[0].tensor_proto.string_val[0])
    (only,) = [each for category in layout.category for each in category.chart]
    assert list(only.multiline.tag) == ["nll", "nll_test", "oracle/entropy"]
    assert set(only.multiline.tag) <= set(scalars(evaluated))
