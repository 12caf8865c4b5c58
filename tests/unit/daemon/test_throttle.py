"""What one user may make us write."""

from control.daemon.throttle import Throttle, with_held


def test_one_key_cannot_write_more_than_its_share_and_the_next_line_says_how_many_were_held_back() -> None:
    """A flood of one user's lines is cut, and nothing about it is hidden."""
    lines = Throttle(burst=3, per_s=1.0)
    assert [lines.passes("mallory", 0.0) for _ in range(5)] == [0, 0, 0, None, None]
    assert lines.passes("mallory", 0.5) is None
    assert lines.passes("mallory", 1.5) == 3


def test_others_lines_pass_while_one_key_floods() -> None:
    """Each key has a share of its own."""
    lines = Throttle(burst=1, per_s=1.0)
    for _ in range(100):
        lines.passes("mallory", 0.0)
    assert lines.passes("alice", 0.0) == 0


def test_a_user_with_many_ids_does_not_grow_the_table_without_end() -> None:
    """A range of subordinate uids is 65 536 keys; the table forgets the quietest."""
    lines = Throttle(burst=1, per_s=1.0, keys_most=8)
    for uid in range(1000):
        assert lines.passes(uid, 0.0) == 0
    assert len(lines._kept) == 8


def test_the_count_joins_the_detail() -> None:
    """A line that others were held back for says so; one that none was is as before."""
    assert with_held("from 127.0.0.1", 0) == "from 127.0.0.1"
    assert with_held("from 127.0.0.1", 7) == "from 127.0.0.1; 7 more like it were not written"
    assert with_held("", 7) == "7 more like it were not written"
