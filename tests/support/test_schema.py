"""Schemas: what they take, and where they say that something is not right."""

import math

import pytest
import torch

from support import schema

T = schema.tensor(torch.float32, (2, None), low=0)
RECORD = schema.record({"a": schema.whole(1, 9)}, {"b": schema.mapping(schema.list_of(schema.text, longest=2))}, closed=True)


@pytest.mark.parametrize(
    ("check", "value"),
    [
        (schema.whole(), 0),
        (schema.number(), math.nan),
        (schema.number(0, 1), 1),
        (schema.text, "ü"),
        (schema.optional(schema.truth), None),
        (schema.one_of(("a", "b")), "b"),
        (schema.either("a", RECORD, schema.text), {"a": 1}),
        (RECORD, {"a": 9, "b": {"x": [], "y": ["1", "2"]}}),
        (T, torch.ones(2, 3)),
        (T, torch.nn.Parameter(torch.zeros(2, 1))),
        (schema.tensors_like({"w": torch.zeros(3)}), {"w": torch.ones(3)}),
    ],
)
def test_right_values_pass(check, value):
    check(value, "x")


@pytest.mark.parametrize(
    ("check", "value", "place"),
    [
        *((schema.whole(), value, "x") for value in (True, 1.0, -1, "1", 2**63, None)),
        *((schema.number(), value, "x") for value in (False, "1", 10**400, None)),
        *((schema.number(0, 1), value, "x") for value in (math.nan, 1.1)),
        *((schema.text, value, "x") for value in (b"a", "\udcff", None)),
        (schema.truth, 1, "x"),
        *((schema.one_of(("a", "b")), value, "x") for value in ("c", [], ("a",))),
        (schema.either("a", RECORD, schema.text), {"b": 1}, "x"),
        (RECORD, [], "x"),
        (RECORD, {}, "x.a"),
        (RECORD, {"a": 10}, "x.a"),
        (RECORD, {"a": 1, "c": 1}, "x"),
        (RECORD, {"a": 1, "b": {"y": ["1", 2]}}, r"x.b.y\[1\]"),
        (RECORD, {"a": 1, "b": {"y": ["1", "2", "3"]}}, "x.b.y"),
        (RECORD, {"a": 1, "b": {1: []}}, "a key of x.b"),
        (T, [[1.0]], "x"),
        (T, torch.ones(2, 3).double(), "x is of type"),
        *((T, torch.ones(*shape), "x has shape") for shape in ((3, 2), (2, 0), (2,), (2, 1, 1))),
        (T, torch.ones(1).expand(2, 3), "x is not a contiguous tensor"),
        (T, torch.ones(3, 2).t(), "x is not a contiguous tensor"),
        (T, torch.ones(2, 3).to_sparse(), "x is not a plain tensor"),
        (T, torch.ones(2, 3, device="meta"), "x is not a plain tensor"),
        (T, torch.tensor([[1.0], [-1.0]]), "x holds values that are not from 0 to inf"),
        (schema.tensor(torch.float32, (1,)), torch.tensor([math.nan]), "x holds values that are not finite"),
        (schema.tensor(torch.int64, (1,), low=0, high=4), torch.tensor([5]), "x holds values that are not from 0 to 4"),
        (schema.tensors_like({"w": torch.zeros(3)}), {"w": torch.ones(3), "v": torch.ones(3)}, "x"),
    ],
)
def test_others_are_refused_with_their_place(check, value, place):
    with pytest.raises(schema.UnfitError, match=place):
        check(value, "x")


def test_models_of_any_size_are_made_without_memory():
    with schema.without_memory():
        model = torch.nn.Linear(2**20, 2**20)  # 4 TiB
    assert schema.tensors_like(model.state_dict())
    with pytest.raises(schema.UnfitError, match="no model has these sizes"), schema.without_memory():
        torch.nn.Linear(2**40, 2**40)
