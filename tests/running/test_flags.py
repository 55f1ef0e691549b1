"""Declarations of flags that must agree with what they name."""

import pytest

from data_sources import SOURCES
from generator import GENERATOR_INIT
from oracle import ORACLE_INIT
from running.flags import BY_NAME, FLAGS, PAPER, PRESETS, SMOKE, preset_settings
from support.command_line import boolean


@pytest.mark.parametrize(
    ("flag", "table"), [("g_init", GENERATOR_INIT), ("oracle_init", ORACLE_INIT), ("dataset", SOURCES), ("preset", PRESETS)]
)
def test_the_choices_of_a_flag_are_the_keys_of_its_table(flag, table):
    assert BY_NAME[flag].type == tuple(table)


def test_a_flag_is_declared_once():
    assert len({flag.name for flag in FLAGS}) == len(FLAGS)


@pytest.mark.parametrize("block", [PAPER, SMOKE])
def test_a_preset_changes_flags_that_exist_to_values_that_they_accept(block):
    for name, value in block.items():
        kind = BY_NAME[name].type
        if isinstance(kind, tuple):
            assert value in kind
        elif kind is boolean:
            assert isinstance(value, bool)
        else:
            kind(str(value))


def test_what_a_flag_requires_is_a_value_of_another_flag():
    for flag in FLAGS:
        if flag.requires is not None:
            other, value = flag.requires
            assert value in BY_NAME[other].type


def test_presets_differ_where_their_blocks_say():
    default, paper, smoke = (preset_settings(name) for name in PRESETS)
    assert {name for name in default if default[name] != paper[name]} == PAPER.keys()
    assert {name for name in paper if paper[name] != smoke[name]} == SMOKE.keys()
