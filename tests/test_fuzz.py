"""The fuzz of `python -m tests.fuzz`, on fewer networks."""

from tests import fuzz


def test_random_networks() -> None:
    outcomes, failures = fuzz.run(60, first_seed=0)
    assert not failures, "\n\n".join(f"{what}\n{network}" for what, network in failures[:3])
    assert outcomes["agrees"] >= 54, outcomes  # refused networks are rare
