"""Bodies of answers are frames again at the other end, also where that has another version of netlab."""

from __future__ import annotations

import netlab
from netlab.agent import formats
from netlab.agent.formats import Format
from netlab.schemas import CONNECTIONS


def test_a_column_that_the_agents_netlab_does_not_have_is_a_gap() -> None:
    answer = CONNECTIONS.frame({"local_port": [443], "mark": [7]}).drop(columns=["mark", "cookie"])

    frame = formats.decoded(formats.encoded(answer, Format.ARROW))

    assert frame["mark"].isna().all()
    assert netlab.coverage(frame)[["what", "kind"]].to_numpy().tolist() == [
        ["columns mark, cookie", "unavailable"]
    ]
