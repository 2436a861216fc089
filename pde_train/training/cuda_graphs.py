"""Functions of tensors on a GPU: kernels that torch.compile makes, launched as CUDA graphs.

A step of a small network is some twenty kernels of a few microseconds. Launched one by one they wait for the
processor that launches them. A CUDA graph is recorded once, with the places in memory that its kernels read and
write, and all of them are then launched by one call.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, fx

from pde_train.cache import cache_folder
from pde_train.training.library import Library

Function = Callable[[list[Tensor]], list[Tensor]]
Body = Callable[[], None]
Recording = Callable[[Body], Body]

UNROLLED = 10
"""Steps in one graph: what a step gives is then copied once in so many to where the next one reads it."""

ROWS = 1000
"""Steps for which there is room before somebody looks at their losses."""

WARM_UP = 3
"""Runs before a recording: libraries allocate, load and choose kernels in the first ones."""


def kernels_folder() -> Path:
    """Where torch keeps the kernels that it has compiled, for this process and later ones."""
    return Path(os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache_folder() / "inductor")))


def compiled(graph: fx.GraphModule, inputs: Sequence[Tensor]) -> Library:
    """Compile a graph.

    Args:
        graph: Of operations on tensors.
        inputs: Tensors like those that it will get.

    Returns:
        What it computes.
    """
    kernels_folder()
    function = torch.compile(graph, fullgraph=True, dynamic=False)

    def run(tensors: list[Tensor]) -> list[Tensor]:
        with torch.no_grad():
            return list(function(*tensors))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own code warns of torch's own changes
        run(Places(inputs).tensors)  # their strides are part of the kernels
    return Library(Once(run, record), Again(run, record))


def record(body: Body) -> Body:
    """A function without arguments as a CUDA graph.

    Args:
        body: Reads and writes tensors that stay where they are. It is called several times.

    Returns:
        Launches what `body` launched.

    Raises:
        RuntimeError: It does what a graph cannot hold, such as waiting for the GPU.
    """
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(WARM_UP):
            body()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        body()
    return graph.replay


class Places:
    """Tensors that stay where they are, into which others are copied.

    Args:
        tensors: What they are like.
    """

    def __init__(self, tensors: Sequence[Tensor]):
        self.tensors = [tensor.detach().clone(memory_format=torch.contiguous_format) for tensor in tensors]
        self.seen: list[tuple[Tensor, int] | None] = [None] * len(self.tensors)

    def put(self, tensors: Sequence[Tensor]) -> None:
        """Copy what is not there yet."""
        for i, tensor in enumerate(tensors):
            seen = self.seen[i]
            if seen is None or seen[0] is not tensor or seen[1] != tensor._version:
                self.tensors[i].copy_(tensor)
                self.seen[i] = tensor, tensor._version

    def changed(self, places: Sequence[int]) -> None:
        """What was put there is there no longer."""
        for place in places:
            self.seen[place] = None


class Once:
    """A function as one graph.

    Args:
        function: From a list of tensors to one, without random numbers.
        recording: Makes a graph of a function without arguments, see `record`.
    """

    def __init__(self, function: Function, recording: Recording):
        self.function, self.recording = function, recording
        self.places: Places | None = None

    def __call__(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """What the function gives; the tensors have the shapes of the first call."""
        if self.places is None:
            self.places = Places(tensors)
            self.launch = self.recording(self._body)
        self.places.put(tensors)
        self.launch()
        return [output.clone() for output in self.outputs]

    def _body(self) -> None:
        assert self.places is not None, "there is nothing to compute with"
        self.outputs: list[Tensor] = self.function(list(self.places.tensors))


class Again:
    """A function again and again, each time on what it gave before, as `pde_train.training.library.repeat`.

    Args:
        function: From a list of tensors to one, the last of which is a number; without random numbers.
        recording: Makes a graph of a function without arguments, see `record`.
    """

    def __init__(self, function: Function, recording: Recording):
        self.function, self.recording = function, recording
        self.places: Places | None = None

    def __call__(self, tensors: Sequence[Tensor], places: Sequence[int], varying: int, count: int) -> list[Tensor]:
        """See `pde_train.training.library.repeat`; `places` and `varying` are those of the first call."""
        rows, tensors = tensors[varying], list(tensors)
        tensors[varying] = rows[0]
        if self.places is None:
            self._record(tensors, places, varying)
        assert self.places is not None, "there is nothing to compute with"
        self.places.put(tensors)
        numbers = []
        for start in range(0, count, ROWS):
            some = min(ROWS, count - start)
            self.rows[:some] = rows[start : start + some]
            self.row.zero_()
            for _ in range(some // UNROLLED):
                self.several()
            for _ in range(some % UNROLLED):
                self.single()
            numbers.append(self.numbers[:some].clone())
        self.places.changed(places)
        found = [*(self.places.tensors[place].clone() for place in places), torch.cat(numbers)]
        if rows.is_cuda:
            torch.cuda.current_stream().synchronize()
        return found

    def _record(self, tensors: Sequence[Tensor], places: Sequence[int], varying: int) -> None:
        self.places = Places(tensors)
        row = self.places.tensors[varying]
        self.rows = row.new_zeros((ROWS, *row.shape))
        self.row = torch.zeros(1, dtype=torch.int64, device=row.device)
        self.numbers = self.function(list(self.places.tensors))[-1].new_zeros(ROWS)
        self.single, self.several = (
            self.recording(partial(self._body, places, varying, steps)) for steps in (1, UNROLLED)
        )

    def _body(self, places: Sequence[int], varying: int, steps: int) -> None:
        assert self.places is not None, "there is nothing to compute with"
        tensors, numbers = list(self.places.tensors), list[Tensor]()
        rows = self.row + torch.arange(steps, device=self.row.device)
        rows = rows.remainder(ROWS)  # while it is recorded, nobody puts the first row back
        for own in self.rows.index_select(0, rows).unbind():
            tensors[varying] = own.clone()
            *outputs, number = self.function(list(tensors))
            for place, output in zip(places, outputs, strict=True):
                tensors[place] = output
            numbers.append(number)
        for place in places:
            self.places.tensors[place].copy_(tensors[place])
        self.numbers.index_copy_(0, rows, torch.stack(numbers))
        self.row += steps
