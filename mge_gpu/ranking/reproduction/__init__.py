"""The claims of the MGE paper, checked on the tables that were published with it."""

from mge_gpu.ranking.reproduction.report import Reproduction, reproduce
from mge_gpu.ranking.reproduction.verdicts import Verdict

__all__ = ["Reproduction", "Verdict", "reproduce"]
