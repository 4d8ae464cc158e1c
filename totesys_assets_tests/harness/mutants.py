"""Mutants: code broken on purpose, the scenario that shows it, and what the harness and the audit say then.

Belongs here: what a case is, and that it is noticed. Does not belong here: the cases, which are in test_mutants.py and
test_mutants_of_the_world.py.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from totesys_assets.audit.audit import audit, checks
from totesys_assets.catalogue.catalogue import catalogue
from totesys_assets.platform import Platform
from totesys_assets_tests.harness.world import Laboratory, World

Patch = pytest.MonkeyPatch


@dataclass(frozen=True)
class Case:
    """A mutant and the scenario that shows it, with what the harness says then, and what the audit.

    ``aftermath`` is what goes on until the audit is made: the harness stops at once. ``audit`` is empty where nothing
    is left that an audit could see: what is written too often, or in an order that shows for a moment.
    """

    mutate: Callable[[Patch], None]
    scenario: Callable[[World], None]
    finding: str
    audit: str = ""
    aftermath: Callable[[World], None] = lambda _: None
    thorough: bool = False  # another mutant breaks the same guarantee, and is tried by `make test`


def mutants(cases: Mapping[str, Case]) -> list[Any]:
    """The cases as parameters of a test."""
    return [
        pytest.param(case, id=name, marks=[pytest.mark.thorough] if case.thorough else [])
        for name, case in cases.items()
    ]


def scenarios(cases: Mapping[str, Case]) -> list[Any]:
    """Every scenario of the cases once, and whether the audit looks at it. The first is for `make test`."""
    audited: dict[Callable[[World], None], bool] = {}
    for case in cases.values():
        audited[case.scenario] = audited.get(case.scenario, False) or bool(case.audit)
    return [
        pytest.param(scenario, looked_at, id=scenario.__name__, marks=[pytest.mark.thorough] if number else [])
        for number, (scenario, looked_at) in enumerate(audited.items())
    ]


def require_passed(laboratory: Laboratory, scenario: Callable[[World], None], *, audited: bool) -> None:
    """The code as it is passes, for the audit too."""
    with laboratory.world() as world:
        scenario(world)
        if audited:
            said = said_by_the_audit(world)
            assert said == "", said


def require_noticed(laboratory: Laboratory, case: Case) -> None:
    """The mutant is noticed by an assertion, and named by the audit."""
    with laboratory.world() as world, Patch.context() as patch:
        case.mutate(patch)
        with pytest.raises(AssertionError, match=case.finding):
            case.scenario(world)
        case.aftermath(world)
        said = said_by_the_audit(world)
        assert re.search(case.audit, said), said


def said_by_the_audit(world: World) -> str:
    """What the audit finds in a world, pending apart: a line for each finding."""
    found = audit(
        Platform(world.sources(lambda: None), world.lake, world.warehouse, world.days),
        [pair for pair in checks(catalogue()) if "exchange_rate" not in pair[0]],  # the world's days have no rates
        marks=world.marks,
    )
    return "\n".join(
        f"{each.asset} {each.check}: {each.detail}" for each in found if each.outcome in ("different", "warning")
    )
