"""The simulated network is a function of its seed."""

from hypothesis import given
from hypothesis import strategies as st

from ops.loopback.network import NetworkConditions, Passage, Path

SHARE = st.floats(0, 1)
CONDITIONS = st.builds(
    NetworkConditions,
    jitter_ms=st.floats(0, 100),
    loss=SHARE,
    reorder=SHARE,
    duplicate=SHARE,
    padding=SHARE,
    padding_only=SHARE,
    seed=st.integers(0, 99),
)


def passages(conditions: NetworkConditions, count: int = 200, *, user_id: int = 1) -> list[Passage]:
    path = Path(conditions, user_id=user_id)
    return [path.next() for _ in range(count)]


@given(CONDITIONS)
def test_the_seed_decides_every_passage(conditions: NetworkConditions):
    """Two paths with the same conditions and person agree in every datagram."""
    assert passages(conditions) == passages(conditions)


@given(CONDITIONS, SHARE)
def test_one_share_does_not_move_the_others(conditions: NetworkConditions, loss: float):
    """With another loss the same datagrams are late and padded."""
    other = NetworkConditions(
        **{name: getattr(conditions, name) for name in conditions.__struct_fields__} | {"loss": loss}
    )
    pick = [(passage.delay_ns, passage.padding_bytes) for passage in passages(conditions)]
    assert pick == [(passage.delay_ns, passage.padding_bytes) for passage in passages(other)]


def test_people_have_paths_of_their_own():
    """Two people do not lose the same datagrams."""
    conditions = NetworkConditions(loss=0.5)
    assert passages(conditions, user_id=1) != passages(conditions, user_id=2)


def test_shares_are_met():
    """Over many datagrams each share is met within two hundredths."""
    count = 20_000
    conditions = NetworkConditions(loss=0.1, duplicate=0.2, padding=0.05, padding_only=0.3, reorder=0.4)
    drawn = passages(conditions, count)
    measured = {
        "loss": sum(passage.lost for passage in drawn) / count,
        "duplicate": sum(passage.copies == 2 for passage in drawn) / count / 0.9,  # of those not lost
        "padding": sum(passage.padding_bytes > 0 for passage in drawn) / count,
        "padding_only": sum(passage.padding_only_follows for passage in drawn) / count,
        "reorder": sum(passage.delay_ns > 0 for passage in drawn) / count,
    }
    assert all(abs(share - getattr(conditions, name)) < 0.02 for name, share in measured.items())


def test_by_default_there_is_only_padding():
    """Nothing is lost, late or doubled unless asked for; padding is always met."""
    drawn = passages(NetworkConditions(), 1000)
    assert not any(passage.lost or passage.delay_ns or passage.copies != 1 for passage in drawn)
    assert any(passage.padding_bytes for passage in drawn)
