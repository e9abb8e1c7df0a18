"""Every arm of a table searched for with the same budget, over one ledger."""

import pytest
from test_director import end, lines

from search.mirror import JOURNAL
from search.plan import make_plan, point_of
from search.registry import load
from search.retune import best_of, retuned_table, retunings, space_of
from search.sampling import Strategy, grid_points
from trainables.parts.procedure import config_values


class Retuned:
    """The toy's table 1 and its arms' own searches."""

    def __init__(self, bench):
        self.bench = bench
        self.plan = bench.plan()
        self.several = retunings(bench.entry, self.plan)

    def open(self):
        self.ledger, director = self.bench.open(retuned=True)
        return director

    def finish(self, director, restart_every=0):
        count = 0
        while not director.finished():
            active = director.next()
            if active is None:  # what was left stood in the ledger
                assert director.finished()
                break
            end(self.bench, director, active, val=int(active.run.key[:4], 16) / 65536)
            count += 1
            if restart_every and count % restart_every == 0:
                director = self.open()
        return director


@pytest.fixture
def retuned(bench, tmp_path):
    made = []

    def make(name="a", **request):
        made.append(Retuned(bench(pack=None, folder=tmp_path / name, tables=["1"], **({"trials": 4, "repeats": 2} | request))))
        return made[-1]

    return make


def test_each_arm_is_searched_over_what_it_does_not_fix_itself(toy):
    plan = make_plan(toy, preset="quick", data_hash="d", code="c", tables=["1"])
    spaces = {arm.name: set(space_of(toy, plan, arm)) for arm in plan.tables[0].arms}
    assert spaces == {"plain": {"form", "bend", "rate"}, "bent, a little": {"bend", "rate"}, "slow": {"form", "bend"}}


def test_what_changes_nothing_for_an_arm_is_not_searched_for_it():
    supcam = load("supcam")
    plan = make_plan(supcam, preset="quick", data_hash="d", code="c", tables=["2"])
    spaces = {arm.name: set(space_of(supcam, plan, arm)) for arm in plan.tables[0].arms}
    assert spaces["Scratch"] == {"finetune_rate", "weight_decay", "zoom"}, "there is no pre-training to be tuned"
    assert "margin.self" not in spaces["MoCo"] and "temperature" in spaces["MoCo"]
    assert {"margin.self", "margin.class", "blend"} <= spaces["SupCAM (full)"]


def test_equal_arms_of_two_tables_are_searched_once():
    supcam = load("supcam")
    several = retunings(supcam, make_plan(supcam, preset="quick", data_hash="d", code="c", tables=["2", "3", "5"]))
    assert [one.arms for one in several if ("2", "SupCAM (full)") in one.arms] == [(("2", "SupCAM (full)"),)]
    names = [one.name for one in several]
    assert len(set(names)) == len(names) == 6 + 3 + 5, "an arm that fixes its own setting has another space than one that does not"
    again = retunings(supcam, make_plan(supcam, preset="quick", data_hash="d", code="c", tables=["5"]))
    assert set(one.name for one in again) <= set(names), "a search keeps its name whatever tables are asked for"


def test_every_arm_gets_the_same_number_of_trials_and_its_best_runs_on_all_seeds(retuned):
    one = retuned()
    director = one.finish(one.open())
    assert director.complete() and len(director.searches) == 4
    assert [search.told for search in director.searches] == [4, 4, 4, 4]
    winners = best_of(director.finals)
    assert set(winners) == {("1", "plain"), ("1", "bent, a little"), ("1", "slow")}
    records = one.ledger.records.values()
    for hashed, _ in winners.values():
        assert {record["seed"] for record in records if record["config_hash"] == hashed and "test_accuracy" in record["metrics"]} == {0, 1}
    assert winners["1", "slow"][1].rate == 0.01 and winners["1", "bent, a little"][1].form == "bent"


def test_a_retuned_row_never_stands_in_a_table_with_rows_at_fixed_settings(retuned):
    one = retuned()
    director = one.finish(one.open())
    winners = best_of(director.finals)
    shape = {"number": "1", "title": "Form", "metric": "test_accuracy", "metrics": ["test_accuracy"], "baseline_arm": "plain", "arms": []}
    table = retuned_table(one.plan.tables[0], shape, winners, one.plan)
    assert table["number"] == "1-retuned" and [arm["name"] for arm in table["arms"]] == ["plain", "bent, a little", "slow"]
    assert all(arm["published"] is None for arm in table["arms"])
    for record in one.ledger.records.values():
        fixed = record["config_hash"] in {arm.config_hash for arm in one.plan.tables[0].arms}
        assert fixed or not any(name.startswith("1/") for name in record["arms"])


def test_a_search_of_an_arm_is_no_trial_of_the_study_s_own_search(retuned):
    one = retuned()
    director = one.finish(one.open())
    own = {record["trial"] for record in one.ledger.records.values() if record["trial"] is not None}
    assert own == set(range(4)) and director.searches[0].told == 4


def test_killed_after_every_run_it_ends_the_same_and_trains_nothing_twice(retuned):
    one, other = retuned("a"), retuned("b")
    straight, broken = one.finish(one.open()), other.finish(other.open(), restart_every=1)
    assert best_of(straight.finals) == best_of(broken.finals)
    assert set(one.ledger.records) == set(other.ledger.records)
    for bench in (one.bench, other.bench):
        tested = [record["key"] for record in lines(bench) if "test_accuracy" in record["metrics"]]
        assert len(tested) == len(set(tested))
        assert max(sum(record["key"] == key for record in lines(bench)) for key in {record["key"] for record in lines(bench)}) <= 2


@pytest.mark.parametrize("harm", ["the copy lost", "the copy damaged", "the asked points lost", "an asked point lost"])
def test_arms_searches_are_made_again_from_the_records_whatever_else_is_gone(retuned, harm):
    one = retuned()
    director = one.finish(one.open())
    before, winners, count = dict(one.ledger.records), best_of(director.finals), len(lines(one.bench))
    journal, asked = one.bench.folder / JOURNAL, one.bench.folder / "trials.jsonl"
    if harm == "the copy damaged":
        journal.write_bytes(journal.read_bytes()[:700] + b"\0\0\n" + journal.read_bytes()[700:])
    elif harm == "an asked point lost":
        asked.write_text("".join(line for number, line in enumerate(asked.read_text().splitlines(True)) if number != 5))
    else:
        (journal if harm == "the copy lost" else asked).unlink()
    director = one.finish(one.open())
    assert director.complete() and len(director.searches) == 4
    assert best_of(director.finals) == winners
    assert one.ledger.records == before and len(lines(one.bench)) == count, "nothing is trained again"
    assert journal.exists()


def test_searches_of_arms_run_side_by_side(retuned):
    one = retuned()
    director = one.open()
    director.slots = 4
    placed = [director.next() for _ in range(4)]
    assert len({active.trial.search.name for active in placed if active.trial}) > 1


def test_of_an_arm_s_search_the_models_of_tables_and_of_its_best_alone_are_kept(retuned):
    one = retuned(trials=8)
    director = one.finish(one.open())
    kept = {path.name for path in (one.bench.folder / "checkpoints").iterdir()}
    wins = {hashed for hashed, _ in best_of(director.finals).values()}
    wins |= {arm.config_hash for table in one.plan.tables for arm in table.arms}
    wins |= {candidate["config_hash"] for candidate in director.outcome()["finalists"]}  # those of the study's own search
    needed = {key for key, record in one.ledger.records.items() if record["config_hash"] in wins}
    assert kept <= needed, "no model of a trial that lost"
    assert {key for key in needed if any("retuned/" in arm or arm.startswith("1/") for arm in one.ledger.records[key]["arms"])} <= kept
    assert len(kept) < len(one.ledger.records)


def test_the_search_of_an_arm_ends_with_the_arm_s_own_grid(toy):
    """What is left of it where the arm fixes a dimension; the rest would be drawn at random."""
    plan = make_plan(toy, preset="quick", data_hash="d", code="c", tables=["1"], strategy=Strategy(sampler="grid", grid=3))
    counts = {}
    for one in retunings(toy, plan):
        points = grid_points(one.plan.space, config_values(one.plan.baseline), 3)
        published = point_of(one.plan.baseline, one.plan.space)
        counts[one.arms[0][1]] = (one.plan.trials, len(points) + (published not in points))
    assert len({count for count, _ in counts.values()}) > 1
    assert all(count == points for count, points in counts.values()), counts
