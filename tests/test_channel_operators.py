"""BatchNorm, the super neuron and their operators as citizens of PyTorch: opcheck, torch.compile, transforms, second
derivatives, checkpointing."""

import re

import pytest
import torch
from channels_common import EIGHT, compose_super, draw, members, run_bn, run_super, start_statistics
from kernels_common import (
    DENSE_LAYOUTS,
    FUNCTIONS,
    NEURONS,
    assert_close,
    by_dtype,
    compute_dtype,
    every_neuron,
    make_x,
)
from tolerances import TOLERANCES

from stdano_kernels import bn_neuron, super_neuron

training_and_eval = pytest.mark.parametrize("training", (True, False), ids=("training", "eval"))
CASES = {
    "plain": dict(shape=(4, 2, 3, 5)),
    "eight neurons": dict(shape=(4, 2, 3, 5), neurons=EIGHT),
    "channels last": dict(shape=(5, 2, 3, 5, 2), layout="channels_last"),
    "time innermost": dict(shape=(5, 2, 3, 5, 2), layout="time innermost"),
    "without space": dict(shape=(4, 2, 3)),
    "float64": dict(shape=(17, 2, 3, 2), dtype=torch.float64),
    "bfloat16": dict(shape=(4, 2, 3, 5), dtype=torch.bfloat16),
    "float16": dict(shape=(3, 2, 3, 5), dtype=torch.float16),
    "no steps": dict(shape=(0, 2, 3, 4)),
    "no samples": dict(shape=(4, 0, 3, 4)),
    "no channels": dict(shape=(4, 2, 0, 4)),
    "one channel": dict(shape=(4, 2, 1, 4)),
    "not dense": dict(shape=(4, 2, 3, 4), sliced=True),
}
OPERATORS = ("encode", "decode", "sums", "backward", "channel_sums", "channel_affine")


def operator_arguments(shape, dtype=torch.float32, layout="contiguous", sliced=False, neurons=("slif", "lif")):
    x = DENSE_LAYOUTS[layout](make_x(shape, dtype))
    x = make_x((*shape[:-1], 2 * shape[-1]), dtype)[..., ::2] if sliced else x
    real, channels, count = compute_dtype(dtype), shape[2], len(neurons)
    own = members(neurons, x, tau=1.7, v_threshold=0.9, alpha=1.5)
    codes, _ = torch.ops.stdano.super_neuron_encode(x, *own)
    grad = draw(shape, 1, dtype)
    return {
        "encode": (x, *own),
        "decode": (codes, draw((1 + count, channels), 2, real), x),
        "sums": (codes, grad, count),
        "backward": (grad, x, codes, draw((3 * count, channels), 3, real), *own),
        "channel_sums": (x,),
        "channel_affine": (grad, x, draw((3, channels), 4, real)),
    }


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("case", CASES)
def test_opcheck(name, case):
    operator = getattr(torch.ops.stdano, name if "channel" in name else f"super_neuron_{name}").default
    torch.library.opcheck(operator, operator_arguments(**CASES[case])[name])


@pytest.mark.parametrize("case", [case for case in CASES if case != "not dense"])
def test_channel_affine_in_place(case):
    """The same bits in the memory of the gradient, which must lie as x does."""
    grad, x, table = operator_arguments(**CASES[case])["channel_affine"]
    expected = torch.ops.stdano.channel_affine(grad, x, table)
    grad = torch.empty_like(x).copy_(grad)
    torch.library.opcheck(torch.ops.stdano.channel_affine_.default, (grad.clone(), x, table))
    assert torch.ops.stdano.channel_affine_(grad, x, table) is None
    assert torch.equal(grad, expected)


def test_channel_affine_in_place_refuses_another_layout():
    x = make_x((4, 2, 3, 5))
    grad = torch.zeros(4, 2, 5, 3).mT
    with pytest.raises(RuntimeError, match="grad must have the layout of x where it is changed in place"):
        torch.ops.stdano.channel_affine_(grad, x, torch.zeros(3, 3))


@pytest.mark.parametrize(
    "name, position, wrong, pattern",
    (
        ("encode", 0, torch.zeros(3, 2), "x must have channels"),
        ("encode", 0, torch.zeros(3, 2, 3, dtype=torch.int32), "x must be float32, float64, bfloat16 or float16"),
        ("encode", 1, [], "a super neuron has 1 to 8 neurons, got 0"),
        ("encode", 1, ["LIF"] * 9, "a super neuron has 1 to 8 neurons, got 9"),
        ("encode", 1, ["LIF", "SLIF"], "no CPU kernel LIF has been compiled or loaded in this process"),
        ("encode", 2, [1.7], "too few constants for 2 neurons"),
        ("encode", 2, [1.0] * 20, "too many constants for 2 neurons"),
        ("decode", 0, torch.zeros(4, 2, 3, 5), "codes must be dense uint8"),
        ("decode", 1, torch.zeros(1, 3), "a super neuron has 1 to 8 neurons, got 0"),
        ("decode", 1, torch.zeros(10, 3), "a super neuron has 1 to 8 neurons, got 9"),
        ("decode", 1, torch.zeros(3, 2), "table must be a contiguous tensor of 3 rows"),
        ("decode", 1, torch.zeros(3, 3, dtype=torch.float64), "table must be .*in the dtype of the state"),
        ("sums", 1, torch.zeros(4, 2, 3), "grad must have the shape and device that x requires"),
        ("sums", 2, 0, "a super neuron has 1 to 8 neurons, got 0"),
        ("sums", 2, 9, "a super neuron has 1 to 8 neurons, got 9"),
        ("backward", 0, torch.zeros(4, 2, 3, 5).double(), "grad must have the dtype that x requires"),
        ("backward", 2, torch.zeros(4, 2, 3, 5), "codes must be those that the forward operator returned"),
        ("backward", 2, torch.zeros(4, 2, 5, 3, dtype=torch.uint8).mT, "codes must be those that the forward"),
        ("backward", 3, torch.zeros(6, 2), "table must be a contiguous tensor of 6 rows"),
        ("backward", 4, ["no such"] * 2, "no CPU kernel no such has been compiled"),
        ("backward", 5, [1.7], "too few constants for 2 neurons"),
        ("channel_sums", 0, torch.zeros(3), "x must have channels"),
        ("channel_affine", 2, torch.zeros(3, 3).mT, None),
        ("channel_affine", 2, torch.zeros(2, 3), "table must be a contiguous tensor of 3 rows"),
    ),
)
def test_operators_check_what_they_get(name, position, wrong, pattern):
    """The kernels read memory that these describe."""
    arguments = list(operator_arguments((4, 2, 3, 5))[name])
    arguments[position] = wrong
    operator = getattr(torch.ops.stdano, name if "channel" in name else f"super_neuron_{name}")
    with pytest.raises(RuntimeError, match=pattern or "table must be a contiguous tensor"):
        operator(*arguments)


# --- torch.compile ---


def compiled(function, backend):
    torch._dynamo.reset()
    return torch.compile(function, fullgraph=True, backend=backend)


def scaled_super(x, *arguments, **settings):
    """Something before and after, which a compiler may move; a power of two, so that it rounds nothing."""
    return super_neuron(x * 2, *arguments, **settings) * 0.5


def scaled_bn(neuron, x, *arguments, **settings):
    spikes, *rest = bn_neuron(neuron, x * 2, *arguments, **settings)
    return spikes * 0.5, *rest


@training_and_eval
@pytest.mark.parametrize("case", (dict(), dict(neurons=("slif", "lif")), dict(statistics=None)), ids=str)
def test_compiled_super_neuron_equals_eager(case, training):
    if training or "statistics" not in case:
        x = make_x((4, 2, 3, 5, 4))
        actual = run_super(x, compiled(scaled_super, "aot_eager"), training=training, **case)
        expected = run_super(x, scaled_super, training=training, **case)
        assert all(torch.equal(actual[name], expected[name]) for name in expected)


@every_neuron
@training_and_eval
@pytest.mark.parametrize("given", ((), ("weight", "bias")), ids=str)
@pytest.mark.parametrize("steps", (4, 18))
def test_compiled_batch_norm_equals_eager(neuron, steps, given, training):
    x = make_x((steps, 2, 3, 5))
    actual = run_bn(neuron, x, compiled(scaled_bn, "aot_eager"), given=given, training=training)
    expected = run_bn(neuron, x, scaled_bn, given=given, training=training)
    assert all(torch.equal(actual[name], expected[name]) for name in expected)


@pytest.mark.slow
@training_and_eval
@pytest.mark.parametrize("kind", ("super", "bn"))
def test_compiled_by_inductor(kind, training):
    """Real code generation: what lies around the kernels may round differently, and float64 shows nothing else."""
    x = make_x((4, 2, 3, 5), torch.float64)
    if kind == "super":
        actual = run_super(x, compiled(scaled_super, "inductor"), training=training)
        expected = run_super(x, scaled_super, training=training)
    else:
        actual = run_bn("llif", x, compiled(scaled_bn, "inductor"), training=training)
        expected = run_bn("llif", x, scaled_bn, training=training)
    assert_close(actual, expected, TOLERANCES[torch.float64])


@pytest.mark.parametrize("name", ("super", "slif"))
def test_compiled_with_dynamic_shapes(name):
    """dynamic=True makes numbers symbols, too, so that checks of them are traced."""
    torch._dynamo.reset()
    kernel = FUNCTIONS.get(name)

    def function(x, training):
        if kernel is None:
            return super_neuron(x * 2, weights, mean.clone(), var.clone(), training=training)
        return kernel(bn_neuron(name, x * 2, mean[0].clone(), var[0].clone(), training=training))

    weights, (mean, var) = torch.full((3,), 1 / 3), start_statistics((3, 3), torch.float32)
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager", dynamic=True)
    for shape in ((4, 2, 3, 5), (4, 3, 3, 7), (6, 4, 3, 2)):
        x = make_x(shape)
        assert torch.equal(compiled(x, True), function(x, True))


# --- what the kernels cannot do ---


def functions(training):
    """Of x alone, with everything else fixed."""
    weights, mean = torch.full((3,), 1 / 3), torch.zeros(3)

    def of_super(x):
        return super_neuron(x, weights, torch.zeros(3, 3), torch.ones(3, 3), training=training)

    return {
        "super": of_super,
        **{n: lambda x, n=n: bn_neuron(n, x, mean.clone(), torch.ones(3), training=training) for n in NEURONS},
    }


@training_and_eval
@pytest.mark.parametrize("name", ("super", *NEURONS))
@pytest.mark.parametrize("constant_gradient", (False, True), ids=("square", "sum"))
def test_second_derivatives_are_refused(name, training, constant_gradient):
    """Also where the gradient that comes in is a constant: the result depends on x all the same."""
    x = make_x((4, 2, 3, 5)).requires_grad_()
    y = functions(training)[name](x)
    loss = y.sum() if constant_gradient else (y * x).sum()
    (grad,) = torch.autograd.grad(loss, x, create_graph=True)
    (plain,) = torch.autograd.grad(functions(training)[name](x), x, torch.ones_like(x) if constant_gradient else x)
    assert torch.equal(grad if constant_gradient else grad - y, plain) or not constant_gradient
    with pytest.raises(RuntimeError, match='stdano: the kernels have no second derivative.*backend="reference"'):
        grad.square().sum().backward()


def test_the_reference_differentiates_twice():
    x = make_x((3, 2, 2), torch.float64).requires_grad_()
    weights = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64, requires_grad=True)

    def function(x, weights):
        return super_neuron(
            x, weights, None, None, training=True, spike="soft", surrogate="sigmoid", backend="reference"
        )

    assert torch.autograd.gradgradcheck(function, (x, weights))


@training_and_eval
@pytest.mark.parametrize("name", ("super", *NEURONS))
@pytest.mark.parametrize("transform", ("grad", "jvp", "jacrev"))
@pytest.mark.filterwarnings("ignore:.*torch.jit.script")
def test_transforms_are_refused(name, training, transform):
    function, x = functions(training)[name], make_x((4, 2, 3, 5))
    calls = {
        "grad": lambda: torch.func.grad(lambda y: function(y).sum())(x),
        "jvp": lambda: torch.func.jvp(function, (x,), (torch.ones_like(x),)),
        "jacrev": lambda: torch.func.jacrev(function)(x),
    }
    with pytest.raises(RuntimeError, match="stdano: the kernels (do not take part|have no forward-mode)"):
        calls[transform]()


@training_and_eval
@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_vmap(training):
    """Refused in words, by stdano or by torch; where it is not, it is right."""
    x = make_x((2, 4, 2, 3, 5))
    for name, function in functions(training).items():
        try:
            mapped = torch.vmap(function)(x)
        except RuntimeError as error:
            assert re.search("stdano: .* do not take part in torch.vmap|rule not implemented for stdano::", str(error))
        else:
            assert name != "super" and not training
            assert torch.equal(mapped, torch.stack([function(y) for y in x]))


def test_forward_mode_is_refused():
    x = make_x((4, 2, 3, 5))
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(x, torch.ones_like(x))
        for function in (*functions(True).values(), *functions(False).values()):
            with pytest.raises(RuntimeError, match="stdano: the kernels have no forward-mode derivative"):
                function(dual)


@pytest.mark.parametrize("reentrant", (False, True), ids=("new", "reentrant"))
def test_activation_checkpointing(reentrant):
    for function in functions(False).values():
        x, grads = make_x((4, 2, 3, 5)), []
        for run in (function, lambda x, f=function: torch.utils.checkpoint.checkpoint(f, x, use_reentrant=reentrant)):
            leaf = x.clone().requires_grad_()
            (run(leaf) * draw(x.shape, 1, torch.float32)).sum().backward()
            grads.append(leaf.grad)
        assert torch.equal(*grads)


def test_changing_x_in_place_before_backward_is_noticed():
    for function in functions(True).values():
        y = make_x((4, 2, 3, 5)).requires_grad_() * 1
        out = function(y)
        y.add_(1)
        with pytest.raises(RuntimeError, match="modified (by an )?inplace"):
            out.sum().backward()


@training_and_eval
@by_dtype((torch.bfloat16, torch.float16))
def test_autocast(dtype, training):
    """Half precision in, half precision out; float64 tables and sums are not touched."""
    x = make_x((4, 2, 3, 5), dtype)
    with torch.autocast("cpu", dtype=dtype):
        inside = run_super(x, training=training)
    outside = run_super(x, training=training)
    assert inside["y"].dtype == dtype and all(torch.equal(inside[name], outside[name]) for name in outside)


def test_soft_spikes_run_the_composition():
    x = make_x((4, 2, 3, 5), torch.float64)
    actual, expected = (run_super(x, f, spike="soft", surrogate="atan") for f in (super_neuron, compose_super))
    assert_close(actual, expected, TOLERANCES[torch.float64])
