"""Ranking pruning methods by the topology of the networks that they leave.

pandas and LightGBM (extra ``rank``) are imported when a function here needs them.
"""

from mge_gpu.ranking._rank import rank, ranked, shipped_ranker
from mge_gpu.ranking.agreement import seed_ceiling, summary
from mge_gpu.ranking.evaluate import evaluate, transfer
from mge_gpu.ranking.ranker import Ranker
from mge_gpu.ranking.reproduction import Reproduction, reproduce
from mge_gpu.ranking.table import load_table

__all__ = [
    "Ranker",
    "Reproduction",
    "evaluate",
    "load_table",
    "rank",
    "ranked",
    "reproduce",
    "seed_ceiling",
    "shipped_ranker",
    "summary",
    "transfer",
]
