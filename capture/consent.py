"""Whose speech may be written: asked for every packet, changed in mid-call.

    decided packet -> Gate: whose SSRC is it?  nobody's yet -> held   refused -> gone   allowed -> batch -> log

A gate stands behind decryption, in front of the batches: what it does not let through is on no disk and in no stream.
While everybody may be recorded, it lets all through unasked. Otherwise an SSRC that nobody has named yet might be
somebody's who refused, so its packets wait in memory until it is named, and go if it never is.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Final, NamedTuple

from capture.batches import Batcher
from capture.clock import boottime_ns
from capture.voice.dave import Heard
from capture.writer import SessionWriter
from contracts.events import ConsentRuled, SpeakerAdmitted, SpeakerWithheld
from contracts.guilds import ConsentMode, GuildSettings

HELD_PACKETS: Final = 1500  # of an SSRC that nobody named: half a minute of speech, more of somebody who hardly talks
KEPT_NS: Final = 600 * 1_000_000_000  # rules are remembered for so long; what arrived before is refused
OPTED_OUT: Final = "opted_out"
NOT_OPTED_IN: Final = "not_opted_in"


class Rule(NamedTuple):
    """A guild's rule and its people's choices at one time."""

    mode: ConsentMode
    opted_out: frozenset[int]
    opted_in: frozenset[int]

    @property
    def everybody(self) -> bool:
        """Whether nobody at all is refused."""
        return self.mode != "opt-in" and not self.opted_out

    def allows(self, user_id: int) -> bool:
        """Whether this person's speech may be written."""
        return user_id in self.opted_in if self.mode == "opt-in" else user_id not in self.opted_out


FORGOTTEN: Final = Rule("opt-in", frozenset(), frozenset())  # of a moment that is too long ago: nobody is allowed


class Consent:
    """A guild's rule and its people's choices, as they are now and were a moment ago.

    What arrived while its speaker refused is refused, also if it is decided after the speaker allowed it again.

    Attributes
    ----------
    mode
        `notice`, `opt-out` or `opt-in`.
    everybody
        Whether nobody at all is refused.
    changed_ns
        Since when, CLOCK_BOOTTIME; 0 = from the beginning.
    """

    def __init__(self, settings: GuildSettings) -> None:
        self._rules: deque[tuple[int, Rule]] = deque()
        self._set(settings, since_ns=0)

    def update(self, settings: GuildSettings, *, now_ns: int | None = None) -> None:
        """They are these from now on, or from a moment of CLOCK_BOOTTIME on."""
        self._set(settings, since_ns=boottime_ns() if now_ns is None else now_ns)

    def _set(self, settings: GuildSettings, *, since_ns: int) -> None:
        rule = Rule(settings.consent, frozenset(map(int, settings.opted_out)), frozenset(map(int, settings.opted_in)))
        self._rules.append((since_ns, rule))
        while self._rules[0][0] < since_ns - KEPT_NS and self._rules[1][0] < since_ns - KEPT_NS:
            self._rules.popleft()
        self._now = rule
        self.mode, self.everybody, self.changed_ns = rule.mode, rule.everybody, since_ns

    def allows(self, user_id: int) -> bool:
        """Whether this person's speech may be written."""
        return self._now.allows(user_id)

    def allowed(self, user_id: int, arrival_ns: int) -> bool:
        """Whether what arrived from this person at a moment (CLOCK_BOOTTIME) may be written."""
        return self._now.allows(user_id) and (
            arrival_ns >= self.changed_ns or self._rule_at(arrival_ns).allows(user_id)
        )

    def allowed_all(self, arrival_ns: int) -> bool:
        """Whether what arrived at a moment may be written, whoever said it."""
        return self.everybody and (arrival_ns >= self.changed_ns or self._rule_at(arrival_ns).everybody)

    def refusal(self, user_id: int) -> str:
        """Why it may not; empty if it may."""
        if self.allows(user_id):
            return ""
        return OPTED_OUT if user_id in self._now.opted_out else NOT_OPTED_IN

    def _rule_at(self, at_ns: int) -> Rule:
        return next((rule for since_ns, rule in reversed(self._rules) if since_ns <= at_ns), FORGOTTEN)


class Gate:
    """One SSRC's way into the log.

    Parameters
    ----------
    owner
        Whose SSRC it is, as far as anybody knows.

    Attributes
    ----------
    withheld
        Packets that were not let through.
    """

    def __init__(self, consent: Consent, owner: Callable[[], int | None], batcher: Batcher) -> None:
        self._consent = consent
        self._owner = owner
        self._batcher = batcher
        self._held: deque[Heard] = deque()
        self.withheld = 0

    def record(self, heard: Heard) -> None:
        """Take a decided packet."""
        if not self._held and self._consent.allowed_all(heard.sealed.arrival_ns):
            self._batcher.add(heard)
        else:
            self._held.append(heard)
            self.settle()

    def settle(self) -> None:
        """Decide about what waits, by what is known and allowed now; a refusal takes what is not sent yet, too."""
        owner, consent = self._owner(), self._consent
        while self._held:
            arrival_ns = self._held[0].sealed.arrival_ns
            if consent.allowed_all(arrival_ns) or (owner is not None and consent.allowed(owner, arrival_ns)):
                self._batcher.add(self._held.popleft())
            elif owner is not None or len(self._held) > HELD_PACKETS:
                self._drop(1)
            else:
                break
        if owner is not None and not consent.allows(owner):
            self.withheld += self._batcher.discard()

    def finish(self) -> None:
        """The take is over: what nobody was named for is dropped."""
        self.settle()
        self._drop(len(self._held))

    def _drop(self, packets: int) -> None:
        for _ in range(packets):
            self._held.popleft()
            self.withheld += 1


class ConsentLog:
    """Writes what the rule and the choices mean for one session: each change once.

    Parameters
    ----------
    mode
        The rule that the log says so far; a new session's is `notice`, which goes without saying.
    withheld
        Who is withheld by what the log says so far, and why.
    """

    def __init__(
        self, consent: Consent, writer: SessionWriter, *, mode: str = "notice", withheld: Mapping[str, str]
    ) -> None:
        self._consent = consent
        self._writer = writer
        self._mode = mode
        self._refused = {int(user_id): why for user_id, why in withheld.items()}

    def update(self, present: Iterable[int]) -> None:
        """Something may have changed, or somebody came; `present` are all who are there."""
        if self._consent.mode != self._mode:
            self._mode = self._consent.mode
            self._writer.write(ConsentRuled, mode=self._mode)
        for user_id in {*present, *self._refused}:
            self._update_person(user_id)

    def _update_person(self, user_id: int) -> None:
        why = self._consent.refusal(user_id)
        if why == self._refused.get(user_id, ""):
            return
        if why:
            self._refused[user_id] = why
            self._writer.write(SpeakerWithheld, user_id=str(user_id), why=why)
        else:
            del self._refused[user_id]
            self._writer.write(SpeakerAdmitted, at_ns=self._since_ns(), user_id=str(user_id))

    def _since_ns(self) -> int | None:
        """Session clock of the change that admits somebody: what arrived from then on may be in the log; None: now."""
        changed_ns = self._consent.changed_ns
        return self._writer.clock.at_ns(changed_ns) if changed_ns > self._writer.clock.zero_boottime_ns else None
