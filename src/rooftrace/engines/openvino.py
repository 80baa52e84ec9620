"""The engine OpenVINO on the CPU, which is part of the core install."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from copy import copy
from dataclasses import dataclass, field
from functools import cache, partial
from io import BytesIO
from math import isnan
from pathlib import Path
from threading import Lock, RLock
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rooftrace.core.errors import BundleError, ExportError, PredictError
from rooftrace.core.parallel import core_count, thread_limit
from rooftrace.core.system import call_in_forks, user_folder, without_telemetry
from rooftrace.core.text import first_line
from rooftrace.engines.base import Engine, EngineKind, this_processor, variants_by_precision
from rooftrace.io.files import write_atomically
from rooftrace.models.bundle import GRAPH_NAME, ModelBundle
from rooftrace.models.spec import Output
from rooftrace.tiling.plan import PROB_ONE, check_range

without_telemetry()

_KEPT_BYTES = 384 * 2**20
"""Maximum memory, as `_nbytes` estimates it, of the compiled networks that are kept, one for each
input shape. Compiling one takes a tenth of a second."""

_KEPT, _KEPT_FILES = "compiled-models", 16
"""Folder of compiled networks in the cache of the user, and their number. Of each process the first
one is kept: for one small image, compiling takes longest. That of the default model has 6 MB."""

_DIGEST_BYTES = 32

_KERNEL_BYTES, _BYTES_PER_PX = 24 * 2**20, 32
"""Memory of a compiled network besides its weights: that of its kernels, and that of its
activations for each pixel of the input. A network of the default model has 28 MB for an input of
224 pixels a side."""

_Answer = Literal["probabilities", "quantised", "features"]
"""Kind of output that a network is compiled for."""

_HINTS = {"fp32": "f32", "bf16": "bf16", "int8": None}
_LAYERS = ("Convolution", "GroupConvolution", "ConvolutionBackpropData", "Concat")
_THREADS = "INFERENCE_NUM_THREADS"
_STREAMS = "NUM_STREAMS"
_PINNING = "ENABLE_CPU_PINNING"
_TYPES = {"uint8": "u8", "uint16": "u16", "float32": "f32"}


_FIRST_USE = Lock()


_CORES: list[Any] = []
_FORKED: list[bool] = []
call_in_forks(lambda: _FORKED.append(True) if _CORES else None)


def _core() -> Any:
    if _FORKED:
        # Compiling would wait for threads that only the parent has.
        raise PredictError(
            "This process was forked from one that had loaded a model, whose threads OpenVINO "
            "does not have here.",
            remedy='Start processes by multiprocessing.get_context("spawn"), or load no model '
            "before they start.",
        )
    with _FIRST_USE:
        if not _CORES:
            # Loaded on first use: the import takes longer than the rest of the start of a command.
            import openvino

            # Two threads that both call it for the first time can wait for one another for ever
            # (OpenVINO 2026.4.1): one holds the guard of a C++ static and waits for the GIL, the
            # other holds the GIL and waits for the guard.
            openvino.Type.u8.to_dtype()
            _CORES.append(openvino.Core())
    return _CORES[0]


@cache
def _listed() -> frozenset[str]:
    return frozenset(_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"))


def capabilities() -> frozenset[str]:
    """Return the types in which this processor computes, by OpenVINO: `FP32`, `BF16`, `INT8`…

    OpenVINO lists `BF16` also where it is emulated, at a fifth of the speed.
    """
    processor = this_processor()
    if processor.machine in ("x86_64", "amd64") and processor.flags and not processor.has_bf16:
        return _listed() - {"BF16"}
    return _listed()


_Key = tuple[tuple[int, ...], _Answer, int]
"""Shape of the input of a compiled network, kind of output, and number of threads that share it."""


@dataclass(frozen=True)
class _Network:
    """A compiled network and the idle requests that run it, each with memory for its activations.

    Threads may share it. `nbytes` is the approximate memory that it takes.
    """

    compiled: Any
    nbytes: int
    idle: list[Any] = field(default_factory=list)


class OpenVinoEngine(Engine):
    """A model on OpenVINO, compiled once for each input shape.

    Args:
        bundle: Model. The graph of a trusted one is read when a network is compiled, which takes a
            tenth of the time of one small image if that network is on the disk. Without the hashes
            of its parts no compiled network is kept on the disk.
        precision: Precision of the arithmetic. The unquantised layers of an int8 graph run in
            bf16 if the processor supports it.
        output: Output to compute, for a refined model with two outputs.
        files: Parts with the graph: one ONNX file, or the xml and the bin file of OpenVINO's own
            format.

    Raises:
        BundleError: the graph cannot be read, or does not match the contract.
    """

    name = "openvino"

    def __init__(
        self,
        bundle: ModelBundle,
        precision: str,
        output: Output = "probabilities",
        files: Sequence[str] = (GRAPH_NAME,),
    ) -> None:
        spec = self._spec = bundle.spec
        self.precision = precision
        self._output = output
        self._parts = partial(map, bundle.part, files)
        listed = [spec.parts[name] for name in files if name in spec.parts]
        self._hashes = [part.sha256 for part in listed]
        self._nbytes = _KERNEL_BYTES
        self._nbytes += sum(part.size for part in listed) or sum(map(len, self._parts()))
        # The int8 kernels take no 16-bit pixels; floats hold the same numbers.
        self._dtype = "float32" if (precision, spec.dtype) == ("int8", "uint16") else spec.dtype
        self._source = bundle.source
        hint = _HINTS[precision] or ("bf16" if "BF16" in capabilities() else "f32")
        # Without AVX-512 the last digits of fp32 depend on the size of the batch: a tile then has a
        # batch of its own, because its output must not depend on the tiles beside it.
        self._is_by_tile = precision == "fp32" and "avx512f" not in this_processor().flags
        self.settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": hint}
        """Settings of the compiled networks, for the run record."""

        self._streams = 1
        self._networks: OrderedDict[_Key, _Network] = OrderedDict()
        self._lock = RLock()
        if not bundle.is_trusted:
            self._read()

    def run(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        """Turn pixel values (n, band, y, x) into probabilities (n, class, y, x) in 0..1."""
        values: NDArray[np.float32] = self._infer(batch, "probabilities")
        return values

    def run_quantised(self, batch: NDArray[Any]) -> NDArray[np.uint8]:
        """Like `run`, but rounded to 255ths inside the network: a quarter of the bytes."""
        values: NDArray[np.uint8] = self._infer(batch, "quantised")
        return values

    def features(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        """Turn pixel values (n, band, y, x) into features (n, feature), one row for each tile.

        They are the means over the tile of the widest layer, the one with most channels: in an
        encoder and decoder, the deepest features of the encoder where the decoder takes them up.

        Raises:
            BundleError: The graph has no convolution.
        """
        values: NDArray[np.float32] = self._infer(batch, "features")
        return values

    def parallel(self, count: int) -> OpenVinoEngine:
        """Return the same model for `count` threads, each of which runs on its share of the cores.

        A batch that all cores share takes a tenth more processor time, because its threads wait for
        one another at every layer. Outputs are the same. The compiled networks are shared.
        """
        cores = core_count()
        one = copy(self)
        one._streams = min(count, cores)
        return one

    def expect(self, shape: tuple[int, ...]) -> None:
        """Begin to compile the network for a batch of this shape, in a thread.

        `run_quantised` waits for it, and raises its errors.
        """
        pool = ThreadPoolExecutor(1, "compile")
        pool.submit(self._network, (shape, "quantised", self._streams))
        pool.shutdown(wait=False)

    def release(self) -> None:
        """Free the memory of the compiled networks; the next call compiles again."""
        with self._lock:
            self._networks.clear()

    def _infer(self, batch: NDArray[Any], wanted: _Answer) -> NDArray[Any]:
        if self._is_by_tile and len(batch) > 1:
            return np.concatenate([self._infer(tile[None], wanted) for tile in batch])
        batch = np.ascontiguousarray(batch, dtype=self._dtype)
        network = self._network((batch.shape, wanted, self._streams))
        try:
            request = network.idle.pop()
        except IndexError:
            request = network.compiled.create_infer_request()
        try:
            request.infer([batch], share_inputs=True, share_outputs=True)
        except RuntimeError as error:
            raise PredictError(
                f"OpenVINO failed on an input of shape {batch.shape}: {first_line(error)}.",
                remedy="Try another engine with --engine, or report it with the bundle.",
            ) from error
        if wanted == "quantised":
            low, high, total = (request.get_output_tensor(i).data.item() for i in (1, 2, 3))
            # A minimum and a maximum may skip NaN, but a sum does not.
            check_range(total if isnan(total) else low, high)
        # The output belongs to the request, which another call overwrites.
        values = np.array(request.get_output_tensor(0).data)
        network.idle.append(request)
        return values if wanted == "features" else values.reshape(len(batch), -1, *batch.shape[2:])

    def _network(self, key: _Key) -> _Network:
        """Return the network that is compiled for an input; the oldest ones are released."""
        (count, _, height, width), _, streams = key
        with self._lock:
            network = self._networks.get(key)
            if network is None:
                nbytes = self._nbytes + count * height * width * streams * _BYTES_PER_PX
                kept = self._networks.values()
                while kept and sum(one.nbytes for one in kept) > _KEPT_BYTES - nbytes:
                    self._networks.popitem(last=False)
                network = self._networks[key] = _Network(self._compile(*key), nbytes)
            self._networks.move_to_end(key)
            return network

    def _read(self) -> Any:
        """Return the checked graph; of a refined model what leads to the chosen output."""
        import openvino

        try:
            graph, *weights = self._parts()
            bytes_of = (np.frombuffer(one, dtype=np.uint8) for one in weights)
            tensors = [openvino.Tensor(one, one.shape, openvino.Type.u8) for one in bytes_of]
            model = _core().read_model(graph, *tensors)
        except (RuntimeError, TypeError, ValueError) as error:
            raise BundleError(
                f"The graph in {self._source} cannot be read: {first_line(error)}.",
                remedy="Get the bundle again from where it was trained.",
            ) from error
        if self._spec.is_refined:
            outputs = [o for o in model.outputs if self._output in o.get_names()]
            if len(outputs) != 1:
                raise BundleError(
                    f"The graph in {self._source} has no output {self._output!r}, which its "
                    "contract names.",
                    remedy="Export it with rooftrace train.",
                )
            model = openvino.Model([outputs[0].get_node()], model.get_parameters(), self._output)
        if len(model.inputs) != 1 or len(model.outputs) != 1:
            raise BundleError(
                f"The graph in {self._source} has {len(model.inputs)} inputs and "
                f"{len(model.outputs)} outputs; expected one of each.",
                remedy="Export it with rooftrace train.",
            )
        shapes = model.input(0).partial_shape, model.output(0).partial_shape
        expected = len(self._spec.bands), self._spec.outputs
        for shape, count, what in zip(shapes, expected, ("bands", "channels")):
            is_4d = shape.rank.is_static and len(shape) == 4
            if not is_4d or (shape[1].is_static and shape[1].get_length() != count):
                raise BundleError(
                    f"The graph in {self._source} has the shape {shape}, "
                    f"expected (n, {count}, y, x): its contract names {count} {what}.",
                    remedy="Export it with rooftrace train.",
                )
        return model

    def _widest(self, model: Any) -> Any:
        """Return the output (n, channel, y, x) of the layer with most channels."""
        layers = [
            (one.output(0).partial_shape[1].get_length(), number, one.output(0))
            for number, one in enumerate(model.get_ordered_ops())
            if one.get_type_name() in _LAYERS
            and one.output(0).partial_shape.rank == 4
            and one.output(0).partial_shape[1].is_static
        ]
        if not layers:
            raise BundleError(
                f"The graph in {self._source} has no convolution, so it has no features of tiles.",
                remedy="Use another model.",
            )
        return max(layers)[2]

    def _compile(self, shape: tuple[int, ...], wanted: _Answer, streams: int) -> Any:
        from openvino import Model, Type, opset13
        from openvino.preprocess import PrePostProcessor

        try:
            threads = thread_limit()
            config = dict(self.settings)
            if threads is not None:
                # Neither affects the result, so they are not in the record. Processes that share a
                # machine would all bind their threads to the same cores, which it has first.
                config |= {_THREADS: str(threads), _PINNING: "NO"}
            if streams > 1:
                config[_STREAMS] = str(streams)
            is_first = not self._networks
            kept = self._name_of(shape, wanted, config) if is_first and self._hashes else ""
            if kept and (compiled := _kept_network(kept, config)) is not None:
                return compiled
            steps = PrePostProcessor(self._read())
            steps.input().tensor().set_element_type(getattr(Type, _TYPES[self._dtype]))
            model = steps.build()
            if wanted == "features":
                area = opset13.constant(np.array([2, 3]))
                pooled = opset13.reduce_mean(self._widest(model), area)
                model = Model([pooled], model.get_parameters(), wanted)
            elif wanted == "quantised":
                model = _rounded(model, self.precision)
            model.reshape(list(shape))
            compiled = _core().compile_model(model, "CPU", config)
            if kept:
                _keep_network(kept, compiled)
            return compiled
        except RuntimeError as error:
            raise BundleError(
                f"The graph in {self._source} does not take an input of shape {shape}: "
                f"{first_line(error)}.",
                remedy="Check input_px and input_multiple_px in its bundle.json.",
            ) from error

    def _name_of(self, shape: tuple[int, ...], wanted: _Answer, config: Mapping[str, str]) -> str:
        """Return the name of a compiled network, a hash of all on which it depends."""
        import openvino

        processor = this_processor()
        # With `PROB_ONE`, this module is all that turns a graph into the one that is compiled.
        made_with = (
            hashlib.sha256(Path(__file__).read_bytes()).hexdigest(), PROB_ONE,
            openvino.__version__, processor.name, sorted(processor.flags), config, self._hashes,
            self.precision, self._dtype, self._output, shape, wanted,
        )  # fmt: skip
        return hashlib.sha256(repr(made_with).encode()).hexdigest()


def _kept_network(name: str, config: Mapping[str, str]) -> Any:
    """Return a compiled network from its file; None if there is none, or it is damaged."""
    with suppress(OSError, RuntimeError):
        path = user_folder("cache") / _KEPT / name
        data = path.read_bytes()
        if hashlib.sha256(data[_DIGEST_BYTES:]).digest() == data[:_DIGEST_BYTES]:
            path.touch()
            return _core().import_model(data[_DIGEST_BYTES:], "CPU", config)
    return None


def _keep_network(name: str, compiled: Any) -> None:
    """Write a compiled network, and remove those that were used longest ago."""
    # Without a cache that can be written to, each start compiles.
    with suppress(OSError, RuntimeError, ExportError):
        path = user_folder("cache") / _KEPT / name
        stream = BytesIO()
        compiled.export_model(stream)
        data = stream.getvalue()
        write_atomically(path, hashlib.sha256(data).digest() + data)
        files = sorted(path.parent.iterdir(), key=lambda file: file.stat().st_mtime)
        for file in files[:-_KEPT_FILES]:
            file.unlink(missing_ok=True)


def _rounded(model: Any, precision: str) -> Any:
    """Return a network that returns 255ths, and its smallest and largest output and their sum."""
    from openvino import Model, opset13

    probability = model.output(0).get_node().input_value(0)
    last = probability.get_node()
    # Of a network that ends by a pixel shuffle, bytes are shuffled: a quarter of what floats take.
    shuffle = last if last.get_type_name() == "DepthToSpace" else None
    if shuffle is not None:
        probability = shuffle.input_value(0)
        last = probability.get_node()
    shape = opset13.shape_of(probability)
    is_narrow = shuffle is not None or probability.partial_shape[1] == 1
    if last.get_type_name() == "Sigmoid" and is_narrow and precision != "bf16":
        # OpenVINO computes the function together with the last convolution, in vectors of which a
        # few channels fill a part. A change of shape keeps them apart, which takes a twentieth less
        # time. So does joining the heads of a network after it, where the pixels of a channel are
        # neighbours. In bf16 the values between the two would be rounded.
        logits = last.input_value(0)
        before = logits.get_node()
        is_joined = before.get_type_name() == "Concat" and before.get_attributes()["axis"] == 1
        heads = [head.get_source_output() for head in before.inputs()] if is_joined else [logits]
        flat = [opset13.reshape(head, [0, 0, -1], special_zero=True) for head in heads]
        probability = opset13.sigmoid(opset13.concat(flat, 1)).output(0)
    scaled = opset13.multiply(probability, opset13.constant(np.float32(PROB_ONE)))
    values = opset13.convert(opset13.add(scaled, opset13.constant(np.float32(0.5))), "u8")
    if shuffle is not None:
        attributes = shuffle.get_attributes()
        values = opset13.reshape(values, shape, special_zero=False)
        values = opset13.depth_to_space(values, attributes["mode"], attributes["block_size"])
    everywhere = opset13.constant(np.arange(probability.partial_shape.rank.get_length()))
    extremes = [
        reduced(probability, everywhere)
        for reduced in (opset13.reduce_min, opset13.reduce_max, opset13.reduce_sum)
    ]
    return Model([values, *extremes], model.get_parameters(), "quantised")


def _prefers() -> Sequence[str]:
    # Without VNNI int8 is the fastest, too, but loses up to 3 points of IoU: docs/prediction.md.
    is_exact = this_processor().has_fast_int8
    return ("int8", "bf16", "fp32") if is_exact else ("bf16", "fp32", "int8")


def _lacks(precision: str) -> str:
    if precision != "bf16" or "BF16" in capabilities():
        return ""
    return f"The processor {this_processor().describe()} has no instructions for bf16"


KIND = EngineKind(
    name=OpenVinoEngine.name,
    takes="every bundle in fp32 and bf16, its int8 variant, exported .onnx and .xml files",
    build=lambda bundle, files, precision, output: OpenVinoEngine(bundle, precision, output, files),
    offers=lambda bundle: variants_by_precision(bundle, "openvino", ("fp32", "bf16")),
    prefers=_prefers,
    lacks=_lacks,
)
