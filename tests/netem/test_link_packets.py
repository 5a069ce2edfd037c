"""What happens to packets: counted and timed at the ends, compared with the settings and with the link's report"""

import socket
import statistics
import threading
import time
import unittest

from test_kit import HEADER_BYTES, Flow, Late, LinkTest, busy_machine, flow, runs

MS = 0.001


class Chance(LinkTest):
    """With a seed, what holds once holds always."""

    def test_nothing_asked_nothing_happens(self):
        with self.link() as link:
            for towards in ("destination", "source"):
                f = flow(link, 1000, towards)
                self.assertEqual(f.numbers(), list(range(1000)))

    def test_loss_is_as_asked(self):
        for chance, seed in ((0.5, 1), (0.5, 2), (0.1, 3), (0.01, 4)):
            with self.subTest(chance=chance, seed=seed), self.link(loss=f"{chance * 100}%", seed=seed) as link:
                f = flow(link, 3000)
                self.assertShare(len(f.lost()), 3000, chance)
                self.assertEqual(len(f.lost()), link.stats()["to-destination"]["lost"])
                self.assertEqual(f.numbers(), sorted(f.numbers()))

    def test_random_loss_does_not_come_in_bursts(self):
        with self.link(loss="20%", seed=5) as link:
            lengths = runs(flow(link, 8000).lost())
        self.assertBetween(statistics.mean(lengths), 1.15, 1.35, "packets a run")

    def test_bursts_have_the_length_and_the_share_asked(self):
        with self.link(loss_burst="2%,25%", seed=6) as link:
            lost = flow(link, 16000).lost()
        self.assertBetween(statistics.mean(runs(lost)), 3.3, 4.7, "packets a burst")
        self.assertBetween(len(lost) / 16000, 0.055, 0.095, "share")

    def test_burst_states_deliver_as_asked(self):
        for text, chance in (("50%,50%,100%", 0), ("100%,0%,30%", 0.7), ("0%,100%,0%,80%", 0.2)):
            with self.subTest(text), self.link(loss_burst=text, seed=7) as link:
                self.assertShare(len(flow(link, 3000).lost()), 3000, chance)

    def test_all_is_lost_and_none_is(self):
        with self.link(loss="100%") as link:
            self.assertEqual(flow(link, 500).numbers(), [])
            link.set(loss="0%")
            self.assertEqual(flow(link, 500).numbers(), list(range(500)))

    def test_duplicates_come_twice(self):
        with self.link(duplicate="10%", seed=8) as link:
            f = flow(link, 3000)
            twice = len(f.got) - 3000
            self.assertEqual(set(f.numbers()), set(range(3000)))
            self.assertShare(twice, 3000, 0.1)
            self.assertEqual(twice, link.stats()["to-destination"]["duplicated"])

    def test_directions_are_independent(self):
        with self.link(loss="50%", seed=9) as link:
            alone = flow(link, 1000, "destination").lost()
        with self.link(loss="50%", seed=9) as link:
            back = flow(link, 1000, "source").lost()
            after = flow(link, 1000, "destination").lost()
        self.assertEqual(alone, after)
        self.assertNotEqual(alone, back)

    def test_one_direction_alone(self):
        with self.link(to_source_loss="30%", seed=10) as link:
            self.assertEqual(flow(link, 1000, "destination").lost(), [])
            self.assertShare(len(flow(link, 1000, "source").lost()), 1000, 0.3)
            link.set(to_source_loss="0%", to_destination_loss="40%")
            self.assertShare(len(flow(link, 1000, "destination").lost()), 1000, 0.4)
            self.assertEqual(flow(link, 1000, "source").lost(), [])

    def fates(self, seed, **settings):
        with self.link(seed=seed, log=True, **settings) as link:
            flow(link, 1000)
            flow(link, 300, "source")
        return [(entry[:2], entry[3:]) for entry in link.log]

    def test_same_seed_same_fates(self):
        bad = {"loss": "20%", "loss_burst": "1%,30%", "duplicate": "10%", "corrupt": "10%", "delay": "3ms",
               "jitter": "2ms", "reorder": "10%"}
        first = self.fates(11, **bad)
        self.assertEqual(len(first), 1300)
        self.assertEqual(sorted(first), sorted(self.fates(11, **bad)))
        self.assertNotEqual(sorted(first), sorted(self.fates(12, **bad)))

    def test_a_setting_leaves_the_other_decisions_alone(self):
        with self.link(loss="30%", seed=13) as link:
            plain = flow(link, 1000).lost()
        with self.link(loss="30%", duplicate="20%", delay="1ms", jitter="1ms", seed=13) as link:
            self.assertEqual(plain, flow(link, 1000).lost())


class Corruption(LinkTest):
    def test_a_damaged_datagram_is_never_delivered(self):
        with self.link(corrupt="20%", seed=14) as link:
            f = flow(link, 3000, size=200)
            corrupted = link.stats()["to-destination"]["corrupted"]
            self.assertEqual(f.damaged, 0)
            self.assertEqual(len(f.lost()), corrupted)
            self.assertShare(corrupted, 3000, 0.2)

    def test_the_copy_of_a_damaged_datagram_is_intact(self):
        with self.link(corrupt="100%", duplicate="100%") as link:
            self.assertEqual(flow(link, 200).numbers(), list(range(200)))

    def test_tcp_brings_the_content_intact(self):
        content = bytes(range(251)) * 4000
        with self.link(corrupt="1%", duplicate="1%", loss="1%", delay="1ms", jitter="1ms", seed=15) as link:
            got, _ = tcp_transfer(link, content)
            stats = link.stats()["to-destination"]
        self.assertEqual(got, content)
        self.assertGreater(stats["corrupted"], 2)
        self.assertLessEqual(stats["largest"], 1500)


def tcp_transfer(link, content):
    """Send to the destination. Return what came, and the seconds from the first byte to the last."""
    got = bytearray()
    with link.socket("destination") as server:
        server.bind((link.destination, 7001))
        server.listen()
        with link.socket("source") as client:
            client.settimeout(20)
            client.connect((link.destination, 7001))
            sender = threading.Thread(target=lambda: (client.sendall(content), client.shutdown(socket.SHUT_WR)))
            sender.start()
            peer, _ = server.accept()
            with peer:
                peer.settimeout(20)
                got += peer.recv(1)
                start = time.monotonic()
                while piece := peer.recv(1 << 16):
                    got += piece
                seconds = time.monotonic() - start
            sender.join()
    return bytes(got), seconds


class Time(LinkTest):
    """Nothing is ever early; and half of it is not much late, however busy the machine is."""

    @busy_machine
    def test_delay(self):
        for delay in (5, 30):
            with self.link(delay=f"{delay}ms") as link:
                delays = flow(link, 150, every=2 * MS).delays()
            self.assertGreaterEqual(min(delays), delay * MS)
            self.assertTimely(statistics.median(delays), 0, (delay + 2) * MS)

    @busy_machine
    def test_no_delay_is_short(self):
        with self.link() as link:
            self.assertTimely(statistics.median(flow(link, 200, every=MS).delays()), 0, MS)

    @busy_machine
    def test_each_direction_has_its_delay(self):
        with self.link(to_source_delay="25ms") as link:
            self.assertTimely(statistics.median(flow(link, 60, "destination", every=2 * MS).delays()), 0, 2 * MS)
            delays = flow(link, 60, "source", every=2 * MS).delays()
        self.assertGreaterEqual(min(delays), 25 * MS)
        self.assertTimely(statistics.median(delays), 0, 27 * MS)

    @busy_machine
    def test_jitter_is_even_and_overtakes(self):
        with self.link(delay="30ms", jitter="10ms", seed=16) as link:
            f = flow(link, 600, every=MS)
            overtaken = link.stats()["to-destination"]["overtaken"]
        delays = f.delays()
        tenths = statistics.quantiles(delays, n=10)
        self.assertGreaterEqual(min(delays), 20 * MS)
        for n, want in ((0, 22), (2, 26), (4, 30), (6, 34), (8, 38)):
            self.assertTimely(tenths[n] / MS, want - 1.5, want + 3, f"decile {n + 1}")
        highest = -1
        seen = sum(1 for n in f.numbers() if n < (highest := max(highest, n)))
        self.assertGreater(seen, 100)
        self.assertEqual(overtaken, seen)

    @busy_machine
    def test_reordered_packets_skip_the_delay(self):
        with self.link(delay="40ms", reorder="10%", seed=17, log=True) as link:
            f = flow(link, 500, every=MS)
            said = link.stats()["to-destination"]["reordered"]
        early = {n for (n, _), delay in zip(f.got, f.delays()) if delay < 40 * MS}
        decided = {entry[1] for entry in link.log if "reordered" in entry}
        self.assertLessEqual(early, decided)
        self.assertTimely(len(early), len(decided), len(decided), "packets ahead")
        self.assertEqual(len(decided), said)
        self.assertShare(said, 500, 0.1)
        self.assertNotEqual(f.numbers(), sorted(f.numbers()))

    @busy_machine
    def test_rate(self):
        for rate, count in ((4, 100), (20, 400)):
            with self.link(rate=f"{rate}Mbit", queue="1MB") as link:
                f = flow(link, count, size=1200)
            # The clock starts with the last bit of the first packet.
            seconds = f.got[-1][1] - f.got[0][1]
            measured = (count - 1) * (1200 + HEADER_BYTES) * 8 / seconds / 1e6
            self.assertTimely(measured / rate, 0.95, 1.05, f"of {rate} Mbit/s")

    @busy_machine
    def test_rate_of_tcp(self):
        content = bytes(1 << 20)
        with self.link(rate="16Mbit", delay="5ms") as link:
            got, seconds = tcp_transfer(link, content)
        self.assertEqual(len(got), len(content))
        # 1448 bytes of content in a packet of 1500.
        self.assertTimely(len(content) * 8 / seconds * 1500 / 1448 / 16e6, 0.95, 1.05, "of 16 Mbit/s")

    @busy_machine
    def test_a_full_queue_overflows(self):
        with self.link(rate="1Mbit", queue="15kB") as link:
            f = flow(link, 100, size=1000 - HEADER_BYTES)
            overflow = link.stats()["to-destination"]["overflow"]
        # Fifteen at once, and those that left while they were sent.
        self.assertTimely(len(f.got), 14, 25, "packets")
        self.assertEqual(len(f.got) + overflow, 100)


class Dark(LinkTest):
    """Black-outs, seen from both sides: what was lost, and for how long nothing came."""

    def runs_of_time(self, f):
        """For each run of losses, from the first to the last."""
        lost, at, spans = f.lost(), 0, []
        for length in runs(lost):
            spans.append(f.sent[lost[at + length - 1]] - f.sent[lost[at]])
            at += length
        if len(spans) != 2:
            raise Late(f"{len(spans)} runs of lost packets")
        return spans

    @busy_machine
    def test_planned_blackouts(self):
        with self.link(blackout="200ms+150ms,500ms+50ms", log=True) as link:
            f = flow(link, 350, every=2 * MS)
        for _, number, second, _, what, *_ in link.log:
            dark = 0.2 <= second < 0.35 or 0.5 <= second < 0.55
            self.assertEqual(what, "blackout" if dark else "carried", f"{number} at {second}")
        # Lost packets were sent within a window, and the others arrived around it: however late a side is, both stay
        # true.
        self.assertGreaterEqual(f.longest_gap(), 0.148)
        first, second = self.runs_of_time(f)
        self.assertTimely(first, 0.1, 0.152, "seconds lost")
        self.assertTimely(second, 0.02, 0.052, "seconds lost")
        self.assertTimely(f.longest_gap(), 0.148, 0.2, "seconds of silence")

    @busy_machine
    def test_blackout_from_now(self):
        with self.link() as link, Flow(link) as f:
            f.send(20, every=2 * MS)
            before = f.now()
            link.blackout("150ms")
            after = f.now()
            f.send(150, every=2 * MS)
            f.finish()
            back = f.got[[n for n, _ in f.got].index(f.lost()[-1] + 1)][1]
        self.assertEqual(len(runs(f.lost())), 1)
        self.assertEqual(f.lost()[0], 20)
        last = f.sent[f.lost()[-1]]
        self.assertGreaterEqual(back - before, 0.15)
        self.assertTimely(last - after, 0.1, 0.15, "seconds lost")
        self.assertTimely(back - before, 0.15, 0.2, "seconds of silence")

    def test_down_and_up_in_one_direction(self):
        with self.link() as link:
            link.down("source")
            self.assertEqual(flow(link, 50, "source").numbers(), [])
            self.assertEqual(len(flow(link, 50, "destination").got), 50)
            link.up()
            self.assertEqual(len(flow(link, 50, "source").got), 50)

    def test_what_is_on_the_wire_arrives(self):
        with self.link(delay="100ms") as link, Flow(link) as f:
            f.send(50)
            f.wait_until(lambda: link.stats()["to-destination"]["packets"] == 50)
            link.down()
            f.send(50).finish()
        self.assertEqual(f.numbers(), list(range(50)))

    def test_down_from_the_start(self):
        with self.link(down=True) as link:
            self.assertEqual(flow(link, 20).numbers(), [])
            link.up()
            self.assertEqual(len(flow(link, 20).got), 20)


if __name__ == "__main__":
    unittest.main()
