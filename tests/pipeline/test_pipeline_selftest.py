"""The self-test: each fault is found by its check, the correct code by none, and what follows."""

import json
import math
import re
import signal
from dataclasses import replace

import pytest
from dp_accounting.pld import privacy_loss_distribution
from scipy import stats
from variants import rest_in_full

import dpmlm.pipeline.selftest as package
from audits.claim.whitebox import judge_whitebox
from audits.subject import TESTS
from dpmlm.cli.main import status_of
from dpmlm.clipping import clip_and_sum
from dpmlm.errors import UserError
from dpmlm.pipeline.selftest import FAULTS, SelfTest, checks, selftest
from dpmlm.pipeline.selftest.faults import CORRECT
from dpmlm.pipeline.selftest.replaced import replaced
from dpmlm.pipeline.selftest.result import BLACK_BOX, CODE, CONTROL, KINDS, WHITE_BOX, Trial
from dpmlm.pipeline.selftest.world import DELTA, Size, World
from dpmlm.privacy import gaussian_noise
from dpmlm.training import loop, optimizer

SMALL = Size(
    canaries=30, gradient_canaries=200, people=20, words=300, hidden=16, steps=10, rate=0.2
)

FOUND_BY = {
    "no noise": {"noise"},
    "half the noise": {"noise"},
    "clipping off": {"sensitivity"},
    "embedding left out": {"doctor", "sensitivity"},
    "noise seed reused": {"noise"},
    "batch-mean loss": {"sensitivity"},
    "person as document": {"sensitivity"},
}
"""What the checks of running code find; the other faults lie in the plan and in the sampler."""
FAST = ["no noise", "clipping off", "embedding left out", "batch-mean loss"]


@pytest.fixture(scope="module")
def world():
    return World.of(0, SMALL)


@pytest.fixture(scope="module")
def plan(world):
    return world.plan(8.0)


def fault_of(name):
    return next(fault for fault in FAULTS if fault.name == name)


def found_in(world, plan):
    return {name for name, check in checks.OF_CODE.items() if check(world, plan)}


def test_checks_of_code_are_silent_about_the_trainer_as_it_is(world, plan):
    assert found_in(world, plan) == set()
    assert checks.accountant(plan) == ""


@pytest.mark.parametrize("name", rest_in_full(FOUND_BY, FAST))
def test_a_fault_of_the_code_is_found_by_its_checks_and_no_other(world, plan, name):
    with fault_of(name).plant():
        assert found_in(world, plan) == FOUND_BY[name]
    assert loop.clip_and_sum is clip_and_sum
    assert optimizer.gaussian_noise is gaussian_noise


def test_every_fault_is_covered_here():
    assert {fault.name for fault in FAULTS} == {
        *FOUND_BY, "wrong rate accounted", "drawn too often"
    }  # fmt: skip


def test_noise_that_two_steps_share_is_found(world, plan):
    def same(shape, std, stream, *, label, step):
        drawn = world.__dict__.setdefault("drawn", {})
        if label not in drawn or step == 0:
            drawn[label] = gaussian_noise(shape, std, stream, label=label, step=step)
        return drawn[label]

    with replaced(optimizer, gaussian_noise=same):
        assert checks.noise(world, plan) == "two steps share it"


def test_a_wrong_rate_in_the_accountant_is_found(world):
    with fault_of("wrong rate accounted").plant():
        wrong = world.plan(8.0)
    said = checks.accountant(wrong)
    assert "by PLD, claimed 8" in said
    assert wrong.sample_rate == pytest.approx(SMALL.rate)


def test_too_many_draws_are_found(world, plan):
    rates = {}
    for fault in (CORRECT, fault_of("drawn too often")):
        people = world.people()
        with fault.plant(), replaced(loop, _step=lambda *_: {}):
            world.train(people, plan)
        rates[fault.name] = checks.sampling(people, plan)
    assert rates["correct"] == ""
    assert "planned 0.2" in rates["drawn too often"]


def naive_epsilon(sigma, rate, steps):
    one = privacy_loss_distribution.from_gaussian_mechanism(
        sigma, sampling_prob=rate, value_discretization_interval=1e-3
    )
    return one.self_compose(steps).get_epsilon_for_delta(DELTA)


@pytest.mark.parametrize(
    ("name", "noise", "rate"),
    [("person as document", 0.5, 1), ("drawn too often", 1, 4)],
)
def test_what_a_fault_keeps_is_what_dp_accounting_says(plan, name, noise, rate):
    kept = fault_of(name).epsilon(plan, SMALL.documents)
    sigma = plan.noise_multiplier * noise
    assert kept == pytest.approx(naive_epsilon(sigma, SMALL.rate * rate, SMALL.steps), rel=0.01)
    assert kept > 2 * plan.epsilon


@pytest.mark.full
def test_two_faults_and_the_correct_training(world):
    seen = []
    found = selftest(
        seeds=1,
        faults=["half the noise", "wrong rate accounted"],
        beta=1e-3,  # the correct training is accused as rarely
        size=SMALL,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen == [(n, 4) for n in range(1, 5)]
    assert [trial.name for trial in found.trials] == [
        CONTROL, "correct", "half the noise", "wrong rate accounted"
    ]  # fmt: skip
    assert found.counted == ["half the noise", "wrong rate accounted"]
    assert found.missed == []
    assert found.wrong_alarms == []
    assert not found.of("correct")[0].caught
    half = found.of("half the noise")[0].found
    assert re.fullmatch(r"its deviation is 0\.(49|50|51) of the planned", half[CODE]["noise"])
    assert set(half[CODE]) == {"noise"}
    assert "noise" in half[WHITE_BOX]
    rate = found.of("wrong rate accounted")[0].found
    assert rate[BLACK_BOX]["verdict"].startswith("the plan claims epsilon 8, and its own noise")
    assert set(rate[CODE]) == {"accountant"}
    assert found.of(CONTROL)[0].p_values[WHITE_BOX] == {}
    again = SelfTest.from_json(found.to_json())
    assert again == found
    assert again.text() == found.text()
    assert f"check of the code: noise: {half[CODE]['noise']}" in found.text()


WHITE = {"no noise": "noise", "half the noise": "noise", "drawn too often": "drawn"}
"""Of the faults, those that noised sums show, and by which test."""
SEEN = ("half the noise", "drawn too often")


@pytest.mark.parametrize(
    "name",
    [pytest.param(f.name, marks=() if f.name in SEEN else pytest.mark.full) for f in FAULTS],
)
def test_what_the_white_box_audit_sees_of_each_fault(world, plan, name):
    with fault_of(name).plant():
        made = world.plan(8.0) if name == "wrong rate accounted" else plan
        _, transcript = world.train(world.people(), made)
    judged = judge_whitebox(world.gradients, transcript, made.to_json(), beta=1e-4)
    assert judged["rejected_by"] == ([WHITE[name]] if name in WHITE else [])


@pytest.mark.full
def test_the_whole_selftest_passes():
    found = selftest(seeds=1)
    assert found.passed, found.text()
    assert {"gating", "exposure"} & set(found.of("no noise")[0].found[BLACK_BOX])
    assert "noise" in found.of("half the noise")[0].found[WHITE_BOX]
    assert "drawn" in found.of("drawn too often")[0].found[WHITE_BOX]
    assert "verdict" in found.of("wrong rate accounted")[0].found[BLACK_BOX]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"faults": ["no noize"]}, "fault 'no noize': the faults are no noise, half the noise"),
        ({"seeds": 0}, "no seed"),
        ({"seeds": []}, "no seed"),
        ({"epsilon": 0.0}, "epsilon 0: plans claim"),
        ({"epsilon": math.inf}, "epsilon inf: plans claim"),
        ({"epsilon": math.nan}, "epsilon nan: plans claim"),
        ({"beta": 0.7}, "beta 0.7: it lies between"),
    ],
)
def test_what_cannot_be_run_is_refused(wrong, said):
    with pytest.raises(UserError, match=said):
        selftest(**({"size": SMALL} | wrong))


def a_trial(name, seed=0, *, kept=math.inf, p=1.0, **found):
    """`found`: by kind, with underscores, words by test or check."""
    kinds = {kind.replace(" ", "_").replace("-", "_"): kind for kind in KINDS}
    return Trial(
        name=name, seed=seed, claimed=8.0, kept=kept,
        found={kind: {} for kind in KINDS} | {kinds[name]: by for name, by in found.items()},
        p_values={BLACK_BOX: dict.fromkeys(TESTS, p), WHITE_BOX: {}},
        untrained_rejected_by=(), right=5, guesses=8,
    )  # fmt: skip


REJECTED = {"black_box_audit": {"gating": "p 0.01"}, "p": 0.01}


def outcome(seeds=20, *, fault=None, correct=None, control=None):
    """A self-test of which everything passes but what is given: trials by seed."""
    trials = []
    for seed in range(seeds):
        trials += [
            (control or {}).get(seed, a_trial(CONTROL, seed, **REJECTED)),
            (correct or {}).get(seed, a_trial("correct", seed, kept=8.0)),
            (fault or {}).get(seed, a_trial("no noise", seed, check_of_the_code={"noise": "0"})),
        ]
    return SelfTest(trials, beta=0.05)


def test_all_in_order_passes():
    found = outcome()
    assert found.passed
    summary = found.text().splitlines()[-1]
    assert summary.startswith("passed: of 1 planted faults that multiply epsilon by 2 or more, 1")


def test_a_fault_that_is_overlooked_in_one_seed_is_missed():
    found = outcome(fault={3: a_trial("no noise", 3)})
    assert not found.passed
    assert found.missed == ["no noise"]
    assert "MISSED no noise" in found.text()
    assert found.text().splitlines()[-1].startswith("FAILED: of 1 planted faults")
    assert "19 of 20" in found.text()
    assert outcome(fault={3: a_trial("no noise", 3, **REJECTED)}).passed


def test_a_fault_that_costs_less_than_a_factor_of_two_may_be_overlooked():
    found = outcome(fault={s: a_trial("no noise", s, kept=15.9) for s in range(20)})
    assert found.passed
    assert found.counted == []
    assert found.text().endswith("not counted, as they cost less: no noise")
    assert not outcome(fault={s: a_trial("no noise", s, kept=16.0) for s in range(20)}).passed


def test_a_check_that_accuses_the_correct_training_fails_it():
    accused = a_trial("correct", 2, kept=8.0, check_of_the_code={"noise": "0.9"})
    found = outcome(correct={2: accused})
    assert found.wrong_alarms == ["seed 2: noise: 0.9"]
    assert not found.passed


@pytest.mark.parametrize("audit", ["black_box_audit", "white_box_audit"])
@pytest.mark.parametrize("seeds", [1, 5, 20, 100])
def test_audits_may_reject_the_correct_model_as_often_as_chance_does(seeds, audit):
    chance, most = 0.0, -1
    while chance < 0.999:
        most += 1
        chance += math.comb(seeds, most) * 0.05**most * 0.95 ** (seeds - most)

    def rejected(count):
        rejections = {
            seed: a_trial("correct", seed, kept=8.0, p=0.01, **{audit: {"gating": "p 0.01"}})
            for seed in range(count)
        }
        return outcome(seeds, correct=rejections)

    assert rejected(most).passed
    if most < seeds:
        assert rejected(most + 1).wrong_alarms


def test_a_rejection_beyond_chance_fails_one_seed_alone():
    """Of one seed the binomial limit allows a rejection, whatever its p-value."""
    assert stats.binom.ppf(0.999, 1, 0.05) == 1
    sure = {0: a_trial("correct", kept=8.0, **REJECTED | {"p": 1e-6})}
    assert not outcome(1, correct=sure).passed


def test_an_untrained_model_that_is_rejected_is_an_alarm():
    accused = replace(a_trial("correct", kept=8.0), untrained_rejected_by=("exposure",))
    wrong = {seed: replace(accused, seed=seed) for seed in range(20)}
    assert not outcome(correct=wrong).passed


def test_without_a_rejected_control_the_audits_have_no_power():
    silent = {seed: a_trial(CONTROL, seed) for seed in range(3)}
    found = outcome(control=silent)
    assert not found.passed
    assert "NO POWER the control is rejected in 17 of 20" in found.text()
    assert outcome(control={seed: silent[seed] for seed in range(2)}).passed


def test_a_piece_that_is_not_there_is_not_replaced():
    with pytest.raises(AttributeError), replaced(loop, no_such_piece=None):
        pass


@pytest.mark.parametrize(
    ("given", "status", "word"),
    [
        ({}, 0, "passed: "),
        ({"fault": {3: a_trial("no noise", 3)}}, 1, "MISSED no noise"),
        ({"correct": {2: a_trial("correct", 2, p=1e-9)}}, 1, "FALSE ALARM an audit rejects"),
        ({"control": {s: a_trial(CONTROL, s) for s in range(9)}}, 1, "NO POWER the control"),
    ],
)
def test_the_command_says_by_its_status_what_came_out(given, status, word, monkeypatch, capsys):
    found = outcome(**given)
    monkeypatch.setattr(package, "selftest", lambda **_: found)
    assert status_of(["audit", "selftest"]) == status
    assert word in capsys.readouterr().out
    assert status_of(["audit", "selftest", "--json"]) == status
    shown = json.loads(capsys.readouterr().out)
    assert shown["schema"] == "dpmlm.selftest/1"
    assert shown["passed"] == (status == 0)
    assert SelfTest.from_json(shown) == found


@pytest.mark.parametrize(
    "options", ["--seeds 0", "--seeds two", "--fault noize", "--epsilon inf", "--beta 2"]
)
def test_the_command_refuses_what_cannot_be_run(options, capsys):
    assert status_of(["audit", "selftest", *options.split()]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert options.split()[1] in told.err or "--seeds" in told.err


def test_an_interrupted_training_stops_at_once_and_nothing_is_kept(
    world, plan, monkeypatch, capsys
):
    handlers = []

    def stopped(*_):
        handlers.append(signal.getsignal(signal.SIGINT))
        raise KeyboardInterrupt

    monkeypatch.setattr(package, "selftest", lambda **_: world.train(world.people(), plan))
    monkeypatch.setattr(loop, "_step", stopped)
    # A job in the background inherits an ignored SIGINT, and would keep it.
    former = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        assert status_of(["audit", "selftest"]) == 130
    finally:
        signal.signal(signal.SIGINT, former)
    assert "nothing is kept" in capsys.readouterr().err
    assert handlers == [signal.default_int_handler]
