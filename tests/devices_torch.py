"""What `test_devices.py` runs in PyTorch, in float64, in each of two processes: `devices_torch.py FOLDER`.

The agent of torchrun starts them here as forks of this process, so that PyTorch is imported once and not three times.
"""

import copy
import json
import os
import sys
import warnings
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import torch._dynamo  # which Adam would import in each process
from torch import distributed
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
from torch.distributed.launcher import LaunchConfig, elastic_launch

from devices import apart, page
from diffstack import __main__ as command
from diffstack.torch_impl.layers import Stack, StackAttention, StackRNN


def numbers(tensors: Any) -> list[Any]:
    whole = (each.full_tensor() if hasattr(each, "full_tensor") else each for each in tensors)
    return [each.detach().numpy() for each in whole]


def trained(step: Any, model: Any, batches: Any, part: slice) -> list[Any]:
    """Losses and parameters, from the code of the page."""
    adam = torch.optim.Adam(model.parameters(), lr=0.01)
    losses = [step(model, adam, *(each[part] for each in batch)) for batch in batches]
    return numbers([*losses, *model.parameters()])


def trained_alone(model: Any, batches: Any) -> list[Any]:
    """The same from an equation of its own, on whole batches."""
    adam, losses = torch.optim.Adam(model.parameters(), lr=0.01), []
    for xs, lengths in batches:
        outputs, _ = model(xs, lengths=lengths)
        errors = ((outputs[..., :4] - xs) ** 2).sum(-1)
        losses.append(sum(errors[i, :length].sum() for i, length in enumerate(lengths)) / lengths.sum())
        adam.zero_grad()
        losses[-1].backward()
        adam.step()
    return numbers([*losses, *model.parameters()])


def of_the_batch(there: dict[str, Any], part: slice, generator: torch.Generator) -> dict[str, float]:
    """Three steps of every layer, each process with its part of the batch."""
    batches, found = [(torch.randn(4, 5, 4, generator=generator), torch.tensor([5, 1, 4, 2])) for _ in range(3)], {}
    for name, layer in {"rnn": StackRNN(4, 6, Stack("neural_stack", 3)), "attention": StackAttention(4, 3, 2)}.items():
        for each in layer.parameters():
            distributed.broadcast(each.detach(), 0)
        expected = trained_alone(copy.deepcopy(layer), batches)
        for way, wrap in there["ways"].items():
            actual = trained(there["step"], wrap(copy.deepcopy(layer)), batches, part)
            found[f"{way}, {name}"] = apart(actual, expected)
    return found


def of_the_sequence(there: dict[str, Any], rank: int, count: int, generator: torch.Generator) -> float:
    """A sequence whose parts the processes pass along."""
    layer, alone = (StackRNN(4, 5, Stack("neural_stack", 3, capacity=8), cell="gru") for _ in range(2))
    for each, other in zip(layer.parameters(), alone.parameters(), strict=True):
        distributed.broadcast(each.detach(), 0)
        other.data = each.detach().clone()
    xs = torch.randn(2, 8, 4, generator=generator)
    part = xs.chunk(count, 1)[rank].clone().requires_grad_()

    def run(carry: Any, xs: Any) -> Any:
        outputs, carry = layer(xs, carry)
        return carry, torch.sin(outputs).sum()

    loss = there["segment"](run, layer(xs[:, :0])[1], part)
    sums = [loss, *(each.grad for each in layer.parameters())]
    for each in sums:
        distributed.all_reduce(each)
    whole = xs.clone().requires_grad_()
    expected = torch.sin(alone(whole)[0]).sum()
    expected.backward()
    of_part = whole.grad.chunk(count, 1)[rank]
    return apart(numbers([*sums, part.grad]), numbers([expected, *(each.grad for each in alone.parameters()), of_part]))


def main(folder: str) -> None:
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    # Of FSDP2, as the page says.
    warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view tensor")
    # The page has a group of its own, and destroys it; one of the same name in the store of torchrun would leave
    # addresses there that no later one could use.
    init, rank, count = distributed.init_process_group, int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    assert count == 2
    options = {"backend": "gloo", "rank": rank, "world_size": count}
    distributed.init_process_group = lambda backend: init(init_method=f"file://{folder}/store-of-page", **options)
    there = page("dist")
    distributed.init_process_group = init
    init(init_method=f"file://{folder}/store", **options)
    generator = torch.Generator().manual_seed(0)
    found = of_the_batch(there, slice(rank, None, count), generator)
    found["passed along"] = of_the_sequence(there, rank, count, generator)
    # The worst of both processes, for the first one to leave.
    worst = torch.tensor([*found.values()])
    distributed.all_reduce(worst, distributed.ReduceOp.MAX)
    distributed.destroy_process_group()
    if rank == 0:
        Path(folder, "found.json").write_text(json.dumps(dict(zip(found, worst.tolist(), strict=True))))
    # The command, to its end in one folder, and until it is interrupted in another. Nobody looks at its picture.
    sys.modules["diffstack.plot"] = mock.Mock()
    for name, steps in (("two", "2"), ("stopped", "1000000")):
        options = ["--resume", "--out", f"{folder}/{name}", "--steps", steps, "--backend", "torch"]
        sys.argv[1:] = ["train", "reverse_string", *options]
        assert command.main() == 0


if __name__ == "__main__":
    specs = DefaultLogsSpecs()
    config = LaunchConfig(
        1, 1, 2, specs, "a run", rdzv_backend="c10d", rdzv_endpoint="localhost:0", start_method="fork"
    )
    elastic_launch(config, main)(sys.argv[1])
