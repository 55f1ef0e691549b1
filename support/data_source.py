"""What a data set declares of itself, readable without loading it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from support.command_line import Flag


@dataclass(frozen=True, kw_only=True)
class DataSource:
    """A value of --dataset.

    Attributes:
        module, name: where its class is, loaded only when it is used.
        settings: flags whose value it changes in every preset.
        presets: flags whose value it changes in single presets, by the preset's name.
        fixed: flags that can have no other value, with the reason: name -> (value, reason).
        flags: the flags that only it has.
        has_oracle: whether the distribution of its sequences is known.
    """

    module: str
    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    presets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    fixed: Mapping[str, tuple[Any, str]] = field(default_factory=dict)
    flags: tuple[Flag, ...] = ()
    has_oracle: bool = False
