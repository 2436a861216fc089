"""Ahead-of-time compilation of a function of tensors, kept on disk for the next process.

The function is traced to a graph of torch operations (make_fx), what does not depend on its state is taken out and
computed once, and the rest is compiled: on the CPU to a shared library (`pde_train.training.library`), which a later
process loads in milliseconds, on a GPU to kernels (`pde_train.training.cuda_graphs`).
"""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import shutil
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, fx

from pde_train.cache import cache_folder
from pde_train.training.compiler import facts
from pde_train.training.cuda_graphs import compiled, kernels_folder
from pde_train.training.decompositions import SPELLED_OUT
from pde_train.training.library import FRAME, Function, Library, build, load

COMPILE_SECONDS, COMPILE_SECONDS_A_NODE = 3.0, 0.008
"""What it takes to compile a function, whatever it is, and for each node of its graph."""

GPU_COMPILE_SECONDS, GPU_COMPILE_SECONDS_A_NODE = 6.0, 0.011
"""The same on a GPU; measured beside an H100."""


@dataclass(frozen=True)
class Traced:
    """A function f(state..., data...) as two graphs: prepare(data...) -> kept, step(state..., kept...) -> f.

    prepare holds all that does not change with the state, such as the source term at the training points.
    """

    prepare: fx.GraphModule
    step: fx.GraphModule
    key: str

    @property
    def library(self) -> Path | None:
        """Where a process has made the compiled step before: its library, or on a GPU the folder of all kernels."""
        cache = cache_folder()
        try:
            library = cache / (cache / f"{self.key}.path").read_text()
            return library if library.exists() else None
        except OSError:  # nobody has made it, or another user
            return None

    @property
    def compile_seconds(self) -> float:
        """What the compilation is expected to take; zero where a process has made the library before."""
        if self.library is not None:
            return 0.0
        nodes = self.step.graph.nodes
        if _on_gpu(self.step):
            return GPU_COMPILE_SECONDS + GPU_COMPILE_SECONDS_A_NODE * len(nodes)
        return COMPILE_SECONDS + COMPILE_SECONDS_A_NODE * len(nodes)

    def compile(self, state: Sequence[Tensor], kept: Sequence[Tensor]) -> Library:
        """The compiled step: what an earlier process has made, or made now from inputs like those that it will get."""
        library, inputs = self.library, [*state, *kept]
        if _on_gpu(self.step):
            functions = compiled(self.step, inputs)
            self._keep(kernels_folder())
            return functions
        if library is not None:
            try:
                return load(library)
            except RuntimeError:  # a damaged file, or one of another machine: it is made anew
                pass
        folder = self._new_folder()
        try:
            library = build(self.step, inputs, folder)
            functions = load(library)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        self._keep(library)
        return functions

    def _new_folder(self) -> Path:
        """A folder for a library: in the cache folder, or where that cannot be written one for this process alone."""
        cache = cache_folder()
        try:
            cache.mkdir(parents=True, exist_ok=True)
            return Path(tempfile.mkdtemp(prefix=f"{self.key}.", dir=cache))
        except OSError:
            folder = tempfile.mkdtemp(prefix="pde_train.")
            atexit.register(shutil.rmtree, folder, ignore_errors=True)
            return Path(folder)

    def _keep(self, library: Path) -> None:
        """Say where the compiled step is; at once, as another process may be looking."""
        cache = cache_folder()
        with contextlib.suppress(OSError):  # it cannot be written, or has another user's mark
            cache.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile("w", dir=cache, prefix=f"{self.key}.", delete=False) as mark:
                mark.write(str(library.relative_to(cache) if library.is_relative_to(cache) else library))
            Path(mark.name).replace(cache / f"{self.key}.path")


def trace(function: Function, state: Sequence[Tensor], data: Sequence[Tensor]) -> Traced:
    """Trace a function of state and data to graphs.

    It is functionalised first: a tensor that is changed in place would look as if it did not depend on
    the state.

    Args:
        function: Of tensors.
        state: Tensors that change from call to call.
        data: Tensors that stay.

    Returns:
        The graphs of what depends on the state, and of what does not.

    Raises:
        RuntimeError: The function draws random numbers, or its control flow depends on the values of
            tensors.
    """
    from torch.fx.experimental.proxy_tensor import make_fx

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pure = torch.func.functionalize(function, remove="mutations")
        graph = make_fx(pure, SPELLED_OUT, tracing_mode="fake", _allow_non_fake_inputs=True)(*state, *data)
    for node in graph.graph.nodes:
        if torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ()):
            raise RuntimeError(f"{node.target} draws random numbers, which compiled code would draw otherwise")
    prepare, step = _split(graph, len(state))
    return Traced(prepare, step, _key(step))


def peak_bytes(graph: fx.GraphModule) -> int:
    """Memory that a traced graph needs when it runs node by node, inputs included; fused code needs less."""
    nodes = list(graph.graph.nodes)
    last_use = {used: i for i, node in enumerate(nodes) for used in node.all_input_nodes}
    held = most = 0
    for i, node in enumerate(nodes):
        held += _bytes(node)
        most = max(most, held)
        done = (used for used in set(node.all_input_nodes) if last_use[used] == i and used.op != "placeholder")
        held -= sum(map(_bytes, done))
    return most


def _bytes(node: fx.Node) -> int:
    value = node.meta.get("val")
    return value.numel() * value.element_size() if isinstance(value, Tensor) else 0


def _on_gpu(step: fx.GraphModule) -> bool:
    return any(node.meta["val"].is_cuda for node in step.graph.nodes if node.op == "placeholder")


def _split(module: fx.GraphModule, states: int) -> tuple[fx.GraphModule, fx.GraphModule]:
    """Part a graph into what does not depend on the first `states` inputs, and the rest."""
    *nodes, output = module.graph.nodes
    inputs = [node for node in nodes if node.op == "placeholder"]
    changing = set(inputs[:states])
    for node in nodes:  # in topological order
        if any(above in changing for above in node.all_input_nodes):
            changing.add(node)
    fixed = [node for node in nodes if node not in changing]
    kept = [node for node in fixed if any(user in changing or user is output for user in node.users)]
    place: dict[fx.Node, fx.Node] = {}
    prepare = fx.Graph()
    for node in fixed:
        place[node] = prepare.node_copy(node, lambda n: place[n])
    prepare.output([place[node] for node in kept])
    step, place = fx.Graph(), {}
    for node in [*inputs[:states], *kept]:
        place[node] = step.placeholder(node.name)
        place[node].meta = dict(node.meta)
    for node in nodes:
        if node in changing and node.op != "placeholder":
            place[node] = step.node_copy(node, lambda n: place[n])
    step.output(fx.node.map_arg(output.args[0], lambda n: place[n]))
    for graph in (prepare, step):
        graph.eliminate_dead_code()
    return fx.GraphModule(module, prepare), fx.GraphModule(module, step)


def _key(step: fx.GraphModule) -> str:
    """Names the library: the graph, its shapes, and what compiles it."""
    shapes = [
        (str(n.meta["val"].shape), str(n.meta["val"].dtype), str(n.meta["val"].device), n.meta["val"].stride())
        for n in step.graph.nodes
        if n.op == "placeholder"
    ]
    made_by = [FRAME, *facts(), torch.get_num_threads()]  # the last is part of the code
    if _on_gpu(step):
        made_by.append(torch.cuda.get_device_capability())
    return hashlib.sha256(repr((step.code, shapes, made_by)).encode()).hexdigest()[:20]
