"""The simulator: bytes are conserved, faster devices are not slower, budgets hold, and nothing is left to chance."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_bench import _native
from edge_bench.banks import BankConfig
from edge_bench.simulate import cli, figure5, traces
from edge_bench.simulate.model import Host, Outcome, Scenario, simulate, smallest_budget, strides_of
from edge_bench.simulate.prefetch import HINTERS
from edge_bench.simulate.profiles import Profile, find
from edge_runtime.errors import InvalidArgumentError, NeverFitsError

BANK = BankConfig("small", 64, 4, (64, 16, 4), fanout=4)
DEVICE = find("ufs-3.1")

scenarios = st.fixed_dictionaries(
    {
        "kind": st.sampled_from(traces.KINDS),
        "seed": st.integers(0, 2**32),
        "prompts": st.integers(1, 60),
        "extra": st.integers(0, 2**20),
        "eviction": st.sampled_from(_native.eviction_names()),
        "prefetch": st.sampled_from(sorted(HINTERS)),
        "pinned": st.booleans(),
        "verify": st.sampled_from((0.0, 1e8)),
        "pause_ms": st.sampled_from((0.0, 1.0)),
    }
)


def outcome_of(case: dict[str, Any], device: Profile = DEVICE, **changes: Any) -> Outcome:
    placement = {1: None if case["pinned"] else device, 2: device, 3: device}
    trace = traces.generate(case["kind"], case["prompts"], case["seed"], BANK.fanout, 3)
    visits = tuple(replace(visit, pause_ms=case["pause_ms"]) for visit in trace.visits)
    scenario = Scenario(
        BANK,
        placement,
        smallest_budget(BANK, placement) + case["extra"],
        case["eviction"],
        case["prefetch"],
        Host(verify_bytes_per_second=case["verify"]),
    )
    return simulate(replace(scenario, **changes), replace(trace, visits=visits))


@settings(max_examples=40, deadline=None)
@given(scenarios)
def test_bytes_are_conserved(case: dict[str, Any]) -> None:
    outcome = outcome_of(case, prefetch="none")
    record, strides = outcome.record, strides_of(BANK)
    assert record["bytes_read"] == sum(level["bytes_read"] for level in record["levels"])
    assert record["bytes_read"] == record["load_bytes"] + outcome.bytes_read.sum()
    assert all(level["hits"] + level["misses"] == case["prompts"] for level in record["levels"])
    missed = sum(level["misses"] * strides[level["level"]] for level in record["levels"])
    assert outcome.bytes_read.sum() == missed
    assert record["load_bytes"] == (BANK.fanout * strides[1] if case["pinned"] else 0)


@settings(max_examples=40, deadline=None)
@given(scenarios)
def test_the_budget_holds_and_a_seed_is_a_result(case: dict[str, Any]) -> None:
    one, other = outcome_of(case), outcome_of(case)
    assert one.record == other.record
    assert 0 < one.record["peak_bytes"] <= one.record["budget_bytes"]


@settings(max_examples=40, deadline=None)
@given(scenarios.filter(lambda case: case["kind"] != "users"), st.floats(1.01, 100))
def test_a_faster_device_is_nowhere_slower(case: dict[str, Any], factor: float) -> None:
    # One user and no hints: what is read does not depend on when it arrives.
    fast = replace(
        DEVICE,
        key="fast",
        bytes_per_second=DEVICE.bytes_per_second * factor,
        latency=tuple((size, seconds / factor) for size, seconds in DEVICE.latency),
    )
    slow, quick = (outcome_of(case, device, prefetch="none") for device in (DEVICE, fast))
    assert (quick.bytes_read == slow.bytes_read).all()
    assert (quick.fetch_s <= slow.fetch_s + 1e-6).all()  # times are whole nanoseconds, request by request


@settings(max_examples=40, deadline=None)
@given(scenarios.filter(lambda case: case["kind"] != "users"), st.integers(1, 8))
def test_more_lanes_are_nowhere_slower(case: dict[str, Any], lanes: int) -> None:
    few, many = (
        outcome_of(case, replace(DEVICE, lanes=count), prefetch="none") for count in (lanes, lanes + 1)
    )
    assert (many.fetch_s <= few.fetch_s + 1e-6).all()


def test_one_block_takes_its_latency_and_its_transfer() -> None:
    bank = BankConfig("one", 64, 4, (64,), fanout=4)
    stride = strides_of(bank)[1]
    device = replace(DEVICE, latency=((1, 1e-3),), bytes_per_second=1e6)
    trace = traces.Trace("one", (traces.Visit((2,)),))
    outcome = simulate(Scenario(bank, {1: device}, stride), trace)
    assert outcome.fetch_s[0] == pytest.approx(1e-3 + stride / 1e6, abs=1e-8)


def test_a_prefill_hides_what_arrives_meanwhile() -> None:
    case: dict[str, Any] = {"kind": "zipf", "seed": 1, "prompts": 20, "extra": 0, "eviction": "fading"}
    case |= {"prefetch": "none", "pinned": False, "verify": 0.0, "pause_ms": 1.0}
    bare, hidden = outcome_of(case), outcome_of(case, host=Host(prefill_s=1.0))
    assert bare.stall_s == pytest.approx(bare.fetch_s)
    assert (hidden.fetch_s == bare.fetch_s).all()
    read = bare.fetch_s > 0
    assert read.any()
    assert (hidden.stall_s[read] <= bare.stall_s[read]).all()


def test_hints_are_read_between_prompts_and_found() -> None:
    case: dict[str, Any] = {
        "kind": "drift",
        "seed": 3,
        "prompts": 300,
        "extra": 100_000,
        "eviction": "fading",
    }
    case |= {"pinned": False, "verify": 0.0, "pause_ms": 1000.0, "prefetch": "recent"}
    outcome = outcome_of(case)
    assert outcome.record["prefetches"] > 0
    assert 0 < outcome.record["prefetch_hits"] <= outcome.record["prefetches"]


def test_users_who_do_not_fit_together_give_up_their_leases() -> None:
    case: dict[str, Any] = {"kind": "users", "seed": 3, "prompts": 50, "extra": 0, "eviction": "lru"}
    outcome = outcome_of(case | {"pinned": False, "verify": 0.0, "pause_ms": 0.0, "prefetch": "none"})
    assert outcome.record["leases_given_up"] > 0
    assert (outcome.bytes_read > 0).any()


def test_a_budget_below_a_path_is_refused() -> None:
    with pytest.raises(NeverFitsError, match="smallest budget that works"):
        simulate(
            Scenario(BANK, dict.fromkeys((1, 2, 3), DEVICE), 16384),
            traces.generate("zipf", 1, 0, BANK.fanout, 3),
        )
    with pytest.raises(InvalidArgumentError, match="must name the levels"):
        Scenario(BANK, {1: DEVICE}, 1)


def test_figure_5_is_fitted_to_the_flat_figure_and_predicts_the_ratio_of_rows() -> None:
    tiers = figure5.Tiers(figure5.fit(), find("ufs-3.1"), figure5.ram())
    predicted = figure5.predict(tiers)
    assert predicted["flat_ms"] == pytest.approx(198, rel=1e-4)
    rows = figure5.BANK.rows
    assert predicted["sibling_ms"] == pytest.approx(198 * sum(rows[1:]) / sum(rows), rel=0.02)
    assert predicted["pager_ms"] < predicted["hierarchical_ms"] < predicted["flat_ms"] / 4


def test_the_verbs_choices_are_those_there_are() -> None:
    assert sorted(cli.EVICTIONS) == sorted(_native.eviction_names())
    assert sorted(cli.PREFETCHES) == sorted(HINTERS)
    assert cli.TRACES == traces.KINDS


def test_slowdowns_slow_down() -> None:
    trace = traces.generate("zipf", 30, 0, BANK.fanout, 3)
    scenario = Scenario(BANK, dict.fromkeys((1, 2, 3), DEVICE), 10**7)
    plain = simulate(scenario, trace)
    slowed = simulate(scenario, trace, np.full(30, 2.0))
    assert slowed.fetch_s == pytest.approx(2 * plain.fetch_s, rel=1e-3)
