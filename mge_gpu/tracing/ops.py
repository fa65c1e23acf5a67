"""The table from ATen op to handler. To support an op, add a line here and a function beside its kin.

Keys leave out the overload unless overloads differ, and the underscore of in-place variants.
"""

from collections.abc import Callable
from typing import Any

from mge_gpu.tracing.handlers import gather, layers, masks, pools, products, resample, shapes, sums
from mge_gpu.tracing.tracer import Call

Handler = Callable[[Call], Any]

_PASS = """
relu relu6 leaky_relu prelu rrelu elu selu celu gelu silu mish softplus softsign hardtanh hardswish
hardsigmoid hardshrink softshrink tanhshrink threshold sigmoid log_sigmoid tanh sin cos exp expm1 log
log1p log2 log10 abs neg sqrt rsqrt square pow reciprocal erf sign clamp clamp_min clamp_max round floor ceil
softmax _softmax log_softmax _log_softmax
batch_norm layer_norm group_norm instance_norm rms_norm
dropout feature_dropout alpha_dropout feature_alpha_dropout
contiguous clone detach alias lift_fresh lift_fresh_copy to _to_copy type_as float nan_to_num identity
""".split()

_COMPARISONS = "eq ne gt ge lt le isnan isinf isfinite logical_and logical_or logical_not logical_xor".split()

HANDLERS: dict[str, Handler] = {
    **{f"aten.{name}": sums.passes for name in _PASS},
    "aten.native_dropout": sums.passes_first,
    "aten.native_layer_norm": sums.passes_first,
    "aten.native_group_norm": sums.passes_first,
    "aten._native_batch_norm_legit_no_training": sums.passes_first,
    "aten._assert_tensor_metadata": sums.ignored,
    # layers
    "aten.conv1d": layers.convolution,
    "aten.conv2d": layers.convolution,
    "aten.conv3d": layers.convolution,
    "aten.convolution": layers.general_convolution,
    "aten.conv_transpose1d": layers.transposed_convolution,
    "aten.conv_transpose2d": layers.transposed_convolution,
    "aten.conv_transpose3d": layers.transposed_convolution,
    "aten.linear": layers.linear,
    "aten.matmul": products.matmul,
    "aten.mm": products.matmul,
    "aten.addmm": products.addmm,
    "aten.bmm": products.matmul,
    "aten.baddbmm": products.addmm,
    "aten.einsum": products.einsum,
    "aten.scaled_dot_product_attention": products.attention,
    # sums, products, joins
    "aten.add": sums.add,
    "aten.sub": sums.add,
    "aten.rsub": sums.add,
    "aten.mul": sums.multiply,
    "aten.div": sums.multiply,
    "aten.copy_": sums.copy,
    "aten.maximum": sums.multiply,
    "aten.minimum": sums.multiply,
    "aten.cat": sums.concatenate,
    "aten.concat": sums.concatenate,
    "aten.stack": sums.stack,
    "aten.addcmul": sums.add_product,
    "aten.addcdiv": sums.add_product,
    "aten.lerp": sums.lerp,
    # constant masks
    "aten.masked_fill": masks.masked_fill,
    "aten.where": masks.where,
    "aten.tril": masks.triangle,
    "aten.triu": masks.triangle,
    **{f"aten.{name}": masks.comparison for name in _COMPARISONS},
    # pools and reductions
    "aten.max_pool1d": pools.max_pool,
    "aten.max_pool2d": pools.max_pool,
    "aten.max_pool3d": pools.max_pool,
    "aten.max_pool2d_with_indices": pools.max_pool_with_indices,
    "aten.max_pool3d_with_indices": pools.max_pool_with_indices,
    "aten.avg_pool1d": pools.average_pool,
    "aten.avg_pool2d": pools.average_pool,
    "aten.avg_pool3d": pools.average_pool,
    "aten.adaptive_avg_pool1d": pools.adaptive_pool,
    "aten.adaptive_avg_pool2d": pools.adaptive_pool,
    "aten.adaptive_avg_pool3d": pools.adaptive_pool,
    "aten.adaptive_max_pool1d": pools.adaptive_pool_with_indices,
    "aten.adaptive_max_pool2d": pools.adaptive_pool_with_indices,
    "aten.mean": pools.reduction,
    "aten.sum": pools.reduction,
    "aten.amax": pools.reduction,
    "aten.amin": pools.reduction,
    "aten.var": pools.reduction,
    "aten.std": pools.reduction,
    "aten.prod": pools.reduction,
    "aten.logsumexp": pools.reduction,
    "aten.linalg_vector_norm": pools.norm,
    "aten.norm": pools.norm,
    "aten.var_mean": pools.two_reductions,
    "aten.std_mean": pools.two_reductions,
    "aten.max": pools.maximum,
    "aten.min": pools.maximum,
    # views and moves
    "aten.view": shapes.view,
    "aten.reshape": shapes.view,
    "aten._unsafe_view": shapes.view,
    "aten.flatten": shapes.view,
    "aten.unflatten": shapes.view,
    "aten.unsqueeze": shapes.view,
    "aten.squeeze": shapes.view,
    "aten.transpose": shapes.transpose,
    "aten.t": shapes.transpose,
    "aten.swapaxes": shapes.transpose,
    "aten.swapdims": shapes.transpose,
    "aten.permute": shapes.permutation,
    "aten.movedim": shapes.movedim,
    "aten.expand": shapes.expand,
    "aten.expand_as": shapes.expand,
    "aten.slice": shapes.slice_,
    "aten.select": shapes.select,
    "aten.narrow": shapes.narrow,
    "aten.split": shapes.split,
    "aten.split_with_sizes": shapes.split,
    "aten.chunk": shapes.split,
    "aten.tensor_split": shapes.split,
    "aten.unbind": shapes.unbind,
    "aten.flip": shapes.flip,
    "aten.roll": gather.roll,
    "aten.index_select": gather.index_select,
    "aten.index": gather.index,
    "aten.pad": shapes.pad,
    "aten.constant_pad_nd": shapes.pad,
    "aten.upsample_nearest1d": resample.upsample_nearest,
    "aten.upsample_nearest2d": resample.upsample_nearest,
    "aten.upsample_nearest3d": resample.upsample_nearest,
    "aten.pixel_shuffle": resample.pixel_shuffle,
    "aten.pixel_unshuffle": resample.pixel_unshuffle,
    "aten.upsample_linear1d": resample.upsample_smooth,
    "aten.upsample_bilinear2d": resample.upsample_smooth,
    "aten.upsample_bicubic2d": resample.upsample_smooth,
    "aten._upsample_bilinear2d_aa": resample.upsample_smooth,
    "aten._upsample_bicubic2d_aa": resample.upsample_smooth,
    "aten.upsample_trilinear3d": resample.upsample_smooth,
    "aten.im2col": resample.windows_apart,
    "aten.col2im": resample.windows_together,
    "aten.unfold": gather.sliding,
    "aten.gather": gather.gather,
    "aten.take_along_dim": gather.gather,
    "aten.repeat_interleave": gather.repeat_interleave,
    "aten.diagonal": gather.diagonal,
    "aten.cumsum": pools.cumulative,
    "aten.cumprod": pools.cumulative,
    "aten.logcumsumexp": pools.cumulative,
    "aten.view_as": shapes.view,
    "aten.reshape_as": shapes.view,
    "aten.numpy_T": shapes.reverse,
    "aten.mT": shapes.transpose_last,
    "aten.tile": shapes.repeat,
    "aten.channel_shuffle": shapes.channel_shuffle,
    "aten.repeat": shapes.repeat,
    "_operator.getitem": shapes.getitem,
}

PASSING = {sums.passes, sums.passes_first, shapes.getitem}
ARITHMETIC = {sums.add, sums.multiply, sums.add_product}
REDUCING = {pools.reduction, pools.norm, pools.two_reductions, pools.maximum}
MOVING = {
    shapes.view, shapes.transpose, shapes.permutation, shapes.movedim, shapes.expand, shapes.slice_,
    shapes.select,
}  # fmt: skip


def lookup(op: str) -> Handler | None:
    """The handler of ``aten.name.overload``: of that overload, of the op, or of its out-of-place form."""
    parts = op.split(".")
    packet = ".".join(parts[:2])
    for key in (op, packet, packet.rstrip("_")):
        if key in HANDLERS:
            return HANDLERS[key]
    return None


def register_handler(op: str, handler: Handler) -> None:
    """Teach the tracer an op: ``handler(call)`` returns the op's output as a `Value`.

    ``op`` is ``"aten.name"`` or ``"namespace.name.overload"``. A handler that changes nothing:

    >>> register_handler("mylib.blur", lambda call: call.value())
    >>> lookup("mylib.blur.default") is not None
    True
    >>> del HANDLERS["mylib.blur"]
    """
    HANDLERS[op] = handler
