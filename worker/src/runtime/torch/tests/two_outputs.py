"""Writes two_outputs.pt, a model with a tuple of outputs that fails on some inputs. Needs torch 2.11."""

from pathlib import Path
from typing import Tuple

import torch


class TwoOutputs(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> Tuple[torch.Tensor, torch.Tensor]:
        if bool((x[:, 0] < 0).any()):
            raise ValueError("the first value is negative")
        return x.sum(1), x * 2


torch.jit.script(TwoOutputs()).save(str(Path(__file__).with_suffix(".pt")))
