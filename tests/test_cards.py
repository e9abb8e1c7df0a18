"""A card's fault is that card's: machines of several, without Ray. Processes go where the test puts them, as Ray does, which knows no card."""

from test_director import END, end, facts, lines, row, study  # noqa: F401 (a fixture)

from search.queue import Active

ERROR = {"end": "failed", "kind": "device", "message": "CUDA error: an illegal memory access"}


def on(card, node="box", memory=80):
    return facts(node, memory) | {"card": f"GPU-{card}", "card_index": str(card)}


class Cards:
    """A machine of some cards under a Director. Each card has a process that takes the next run, and holds the card where it must."""

    def __init__(self, director, bench, cards, broken=(), memory=None):
        self.director, self.bench, self.broken, self.memory = director, bench, set(broken), memory or {}
        director.nodes.count([{"NodeID": "box", "Resources": {"GPU": float(cards)}}])
        self.cards, self.held, self.took = range(cards), set(), []
        for card in self.cards:
            director.nodes.met(on(card, memory=self.memory.get(card, 80)))  # each process has begun with a run: that takes seconds

    def turn(self, card):
        """What the card's process does next."""
        c = self.director
        if card in self.held:
            if not c.row("?", {"holds": f"GPU-{card}"}, 0):
                return
            self.held.discard(card)
        active = c.next()
        if active is None:
            return
        told = set(c.job(active)["cards"])
        where = on(card, memory=self.memory.get(card, 80))
        stopped = c.row(active.run.key, {"origin": where}, active.placement)
        if f"GPU-{card}" in told:
            assert not stopped
            self.held.add(card)
        elif not stopped:
            self.took.append((active.run.key, card))
            self.work(active, card, where)

    def work(self, active, card, where):
        if card in self.broken:
            self.director.row(active.run.key, ERROR | END | where)
        elif where["device_memory"] < 80:
            full = {"end": "failed", "kind": "out_of_memory", "message": "full", "neighbours": False}
            self.director.row(active.run.key, full | END | where)
        else:
            self.director.row(active.run.key, row())
            end(self.bench, self.director, active)

    def until_the_end(self):
        for _ in range(60):
            for card in self.cards:
                self.turn(card)
            if self.director.finished() and not self.held:
                return
        raise AssertionError("it does not end")


def test_a_broken_card_costs_no_run_its_result_is_named_and_leaves_the_others_of_its_machine(study):  # noqa: F811
    bench = study(trials=0, repeats=4, tables=["1"])
    _, c = bench.open(slots=3)
    cards = Cards(c, bench, 3, broken={1})
    cards.until_the_end()
    assert {record["status"] for record in lines(bench)} == {"completed"} and len(lines(bench)) == 12 and c.complete()
    assert sum(card == 1 for _, card in cards.took) == 2 and c.halt is None and not c.nodes.aside
    why = "CUDA error: an illegal memory access"
    assert c.progress().aside == [f"box, card 1 (GPU-1): {why}"]
    assert f"card 1 (GPU-1) of machine box was set aside after 2 faults in a row: {why}" in c.notes


def test_a_run_that_breaks_the_device_wherever_it_goes_is_recorded_after_two_cards_and_sets_none_aside(study):  # noqa: F811
    bench = study(trials=0, repeats=1, tables=["1"])
    _, c = bench.open(slots=2)
    cards = Cards(c, bench, 2)
    bad = []
    good = cards.work

    def work(active, card, where):
        bad[:] = bad or [active.run.key]
        if active.run.key in bad:
            c.row(active.run.key, ERROR | END | where)
        else:
            good(active, card, where)

    cards.work = work
    cards.until_the_end()
    assert sorted(card for key, card in cards.took if key in bad) == [0, 1], "once on each: on the first card it would not be another try"
    found = {record["key"]: record["status"] for record in lines(bench)}
    assert found.pop(bad[0]) == "failed" and set(found.values()) == {"completed"}
    assert not c.nodes.cards_aside and not c.nodes.aside


def test_a_machine_is_set_aside_with_the_last_of_its_cards_and_the_study_ends_no_sooner(study):  # noqa: F811
    bench = study(trials=0, repeats=8, tables=["1"])
    _, c = bench.open(slots=2)
    cards = Cards(c, bench, 2, broken={0, 1})
    for _ in range(4):
        for card in cards.cards:
            assert not c.nodes.aside or len(c.nodes.cards_aside) == 2
            cards.turn(card)
    assert list(c.nodes.aside) == ["box"] and len(c.nodes.cards_aside) == 2


def test_memory_that_a_smaller_card_of_a_machine_lacks_is_not_the_configuration_s_fault(study):  # noqa: F811
    bench = study(trials=0, repeats=2, tables=["1"])
    _, c = bench.open(slots=3)
    cards = Cards(c, bench, 4, memory={0: 24, 1: 24, 2: 24})
    cards.until_the_end()
    assert {record["status"] for record in lines(bench)} == {"completed"} and c.complete()
    assert len(cards.took) == len(set(cards.took)), "no run comes to a card a second time"
    assert not c.nodes.cards_aside and not c.nodes.aside


def test_cards_too_small_that_are_the_only_ones_left_are_not_tried_for_ever(study):  # noqa: F811
    bench = study(trials=0, repeats=1, tables=["1"], arms=["plain"])
    _, c = bench.open(slots=2)
    c.nodes.met(on(9, "gone"))
    Cards(c, bench, 2, memory={0: 24, 1: 24}).until_the_end()
    assert lines(bench)[-1]["error"]["kind"] == "out_of_memory" and c.complete()


def test_a_card_that_a_run_is_kept_from_is_held_until_another_run_waits_which_goes_first(study):  # noqa: F811
    bench = study(trials=0, repeats=2, tables=["1"], arms=["plain"])
    _, c = bench.open(slots=2)
    c.nodes.count([{"NodeID": "box", "Resources": {"GPU": 2.0}}])
    broken = c.next()
    c.row(broken.run.key, ERROR | END | on(0), broken.placement)
    again = c.next()
    assert again is broken and c.job(again)["cards"] == ["GPU-0"]
    assert c.row(again.run.key, {"origin": on(0)}, again.placement) is False and not c.queue.active, (
        "handed back, and not stopped: it holds"
    )
    assert not c.row(again.run.key, {"holds": "GPU-0"}, again.placement), "nothing else waits"
    other = c.next()
    assert other is not broken and c.job(other)["cards"] == [] and c.queue.handed_back() == 1
    assert c.row(again.run.key, {"holds": "GPU-0"}, again.placement), "the other may have it"
    assert c.next() is broken and c.job(broken)["cards"] == ["GPU-0"] and c.queue.handed_back() == 1
    c.row(other.run.key, {"origin": on(0)}, other.placement)
    assert not c.row(again.run.key, {"holds": "GPU-0"}, 0), "only the run waits that is kept from it"
    c.row(broken.run.key, {"origin": on(1)}, broken.placement)
    assert broken.run.key in c.queue.active and c.queue.handed_back() == 0


def test_a_run_that_was_placed_before_its_card_was_set_aside_is_placed_again_at_once(study):  # noqa: F811
    bench = study(trials=0, repeats=3, tables=["1"])
    _, c = bench.open(slots=3)
    c.nodes.count([{"NodeID": "box", "Resources": {"GPU": 3.0}}])
    one, two, late = c.next(), c.next(), c.next()
    for active in (one, two, late):
        assert c.job(active)["cards"] == []
    for active in (one, two):
        c.row(active.run.key, ERROR | END | on(2))
    assert c.row(late.run.key, {"origin": on(2)}, late.placement) is True and late.run.key not in c.queue.active and not lines(bench)


def test_a_card_that_cannot_be_seen_is_set_aside_and_not_its_machine(study):  # noqa: F811
    bench = study(trials=0, repeats=2, tables=["1"])
    _, c = bench.open(slots=2)
    c.nodes.count([{"NodeID": "box", "Resources": {"GPU": 2.0}}])
    for _ in range(2):
        active = c.next()
        c.row(active.run.key, {"end": "misplaced", "kind": "card_hidden", "message": "PyTorch sees none"} | END | on(1))
    assert c.progress().aside == ["box, card 1 (GPU-1): PyTorch sees none"] and not c.nodes.aside and not lines(bench)


def test_a_machine_with_one_card_is_set_aside_as_a_whole(study):  # noqa: F811
    bench = study(trials=0, repeats=2, tables=["1"])
    _, c = bench.open(slots=2)
    c.nodes.count([{"NodeID": "box", "Resources": {"GPU": 1.0}}, {"NodeID": "other", "Resources": {"GPU": 1.0}}])
    for active in (c.next(), c.next()):
        c.row(active.run.key, ERROR | END | on(0))
    assert list(c.nodes.aside) == ["box"] and not c.nodes.cards_aside


def test_a_machine_on_which_processes_die_as_they_start_is_set_aside_where_others_do_well(study):  # noqa: F811
    bench = study(trials=0, repeats=4, tables=["1"])
    _, c = bench.open(slots=2)
    c.nodes.machines = 2
    good, *bad = c.next(), c.next(), c.next()
    for active in bad:
        assert c.job(active)["avoid"] == []
        c.lost(active.run.key, active.placement, placed=lambda: ("dead", "morgue"))
    assert not c.nodes.aside, "nowhere else has a process come to its run yet: the code may be why"
    c.row(good.run.key, {"origin": facts("well")})
    again, third = c.next(), c.queue.place(Active(bench.plan().runs[-1]))
    assert c.job(again)["avoid"] == ["dead"]
    c.lost(third.run.key, third.placement, placed=lambda: ("dead", "morgue"))
    assert list(c.nodes.aside) == ["dead"] and c.job(c.next())["avoid"] == ["dead"] and c.halt is None
    assert any(note.startswith("machine morgue was set aside after 3 faults in a row: processes die on morgue") for note in c.notes)
    assert not lines(bench)


def test_processes_that_die_as_they_start_on_every_machine_set_none_aside_and_end_the_study(study):  # noqa: F811
    bench = study(trials=0, repeats=4, tables=["1"])
    _, c = bench.open(slots=2)
    count = 0
    while (active := c.next()) is not None:
        where = ("a", "b")[count % 2]
        c.lost(active.run.key, active.placement, placed=lambda where=where: (where, where))
        count += 1
    assert count == 8 and not c.nodes.aside and "died as they started" in c.halt


def test_a_run_that_must_run_alone_and_comes_to_a_card_that_it_is_kept_from_is_placed_again_though_nothing_else_may_go_first(study):  # noqa: F811
    bench = study(trials=0, repeats=1, tables=["1"], arms=["plain"])
    _, c = bench.open(slots=2)
    c.nodes.count([{"NodeID": "box", "Resources": {"GPU": 2.0}}])
    first = c.next()
    c.row(first.run.key, {"origin": on(0)}, first.placement)
    full = {"end": "failed", "kind": "out_of_memory", "message": "full", "neighbours": True}
    c.row(first.run.key, full | END | on(0), first.placement)
    again = c.next()
    assert again is first and again.breaks.alone and c.job(again)["cards"] == ["GPU-0"]
    assert c.row(again.run.key, {"origin": on(0)}, again.placement) is False and not c.queue.active, "handed back; its process holds"
    assert c.next() is first and c.next() is None, "alone"
    assert c.row("?", {"origin": on(1)}, 0) is True and c.row(first.run.key, {"origin": on(1)}, first.placement) is False
    end(bench, c, first)
    assert c.complete() and [one["status"] for one in lines(bench)] == ["completed"]


WORKER = {"CPU": 1.0, "GPU": 1.0}
HEAD = {"NodeID": "head", "Resources": {"CPU": 0.0}}  # as clusters/ and cluster.yaml start it


def machine(name, gpus=1.0):
    return {"NodeID": name, "Resources": {"CPU": 8.0, "GPU": gpus}}


ODD = {"end": "failed", "kind": "error", "message": "odd"}


def test_a_run_that_broke_off_on_the_one_machine_that_could_take_it_is_placed_there_again_and_not_kept_for_a_head_without_gpus(study):  # noqa: F811
    bench = study(trials=0, repeats=1, tables=["1"], arms=["plain"])
    _, c = bench.open()
    c.nodes.count([HEAD, machine("a")], WORKER)
    active = c.next()
    c.row(active.run.key, ODD | END | facts("a"), active.placement)
    assert c.job(c.next())["avoid"] == [], "it would wait for ever"
    c.nodes.count([HEAD, machine("a"), machine("b")], WORKER)
    assert c.job(active)["avoid"] == ["a"]


def test_a_run_that_broke_off_on_the_only_sound_machine_does_not_go_to_one_that_was_set_aside(study):  # noqa: F811
    bench = study(trials=0, repeats=1, tables=["1"], arms=["plain"])
    _, c = bench.open()
    c.nodes.count([HEAD, machine("hole"), machine("b")], WORKER)
    c.nodes.aside["hole"] = "it is full"
    active = c.next()
    c.row(active.run.key, ODD | END | facts("b"), active.placement)
    assert c.job(c.next())["avoid"] == ["hole"]


def test_processes_killed_on_the_only_machine_left_do_not_set_it_aside(study):  # noqa: F811
    bench = study(trials=0, repeats=2, tables=["1"])
    _, c = bench.open(slots=2)
    c.nodes.count([HEAD, machine("a"), machine("hole")], WORKER)
    c.nodes.aside["hole"] = "it is full"
    refused = c.next()
    c.row(refused.run.key, {"end": "failed", "kind": "request", "message": "a group's first word"} | END | facts("a"), refused.placement)
    both = [c.next(), c.next()]
    for one in both:
        c.row(one.run.key, row() | {"origin": facts("a")}, one.placement)
    for one in both:
        c.lost(one.run.key, one.placement)
    assert list(c.nodes.aside) == ["hole"], "its memory may be short"


def test_processes_that_go_with_their_machine_before_they_began_do_not_end_the_study(study):  # noqa: F811
    """A machine of eight cards that is taken away as they start."""
    bench = study(trials=0, repeats=4, tables=["1"])
    _, c = bench.open(slots=12)
    c.nodes.count([HEAD, machine("a", 8.0), machine("b", 8.0)], WORKER)
    placed = [active for _ in range(12) if (active := c.next())]
    assert len(placed) >= 8
    for active in placed:
        c.lost(active.run.key, active.placement, placed=lambda: ("gone", ""))
    assert c.halt is None and not c.nodes.aside and not lines(bench) and c.next() is not None


def test_weights_that_cannot_be_had_where_a_run_was_sent_for_another_fault_are_asked_for_elsewhere_too(study):  # noqa: F811
    bench = study(trials=0, repeats=1, tables=["1"], arms=["plain"])
    _, c = bench.open()
    c.nodes.count([HEAD, machine("a"), machine("b")], WORKER)
    active = c.next()
    c.row(active.run.key, {"origin": facts("a")}, active.placement)
    c.lost(active.run.key, active.placement)
    away = {"end": "failed", "kind": "unreachable_weights", "message": "no way out from there"}
    c.row(c.next().run.key, away | END | facts("b"), active.placement)
    assert not lines(bench), "the first machine may have one"
    c.row(c.next().run.key, away | END | facts("a"), active.placement)
    assert lines(bench)[-1]["error"]["kind"] == "unreachable_weights"


def test_a_run_of_a_race_that_was_handed_back_is_not_begun_a_second_time_without_what_is_known_of_it(study):  # noqa: F811
    bench = study(trials=1, repeats=2, tables=["none"])
    _, c = bench.open(slots=1)
    c.nodes.count([{"NodeID": "box", "Resources": {"GPU": 2.0}}])
    end(bench, c, c.next())
    broken = c.next()
    c.row(broken.run.key, ERROR | END | on(0), broken.placement)
    again = c.next()
    assert again is broken and c.job(again)["cards"] == ["GPU-0"]
    c.row(again.run.key, {"origin": on(0)}, again.placement)
    assert c.next() is broken and not c.queue.resumed and broken.breaks.errors == 1
