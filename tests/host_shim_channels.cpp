// The CUDA kernels of the super neuron and of channels on the host. With -DDTYPE=float32 only those of one dtype.
#define STDANO_ISA host_device
#include "host_shim.h"

#include "cuda/super_neuron.h"

namespace stdano {
namespace host_device {
namespace {

#if defined(DTYPE)
bool has(Dtype dtype) { return dtype == Dtype::DTYPE; }

template <class F>
void choose(Dtype, F f) {
  using real = std::conditional_t<Dtype::DTYPE == Dtype::float64, double, float>;
  using half = std::conditional_t<Dtype::DTYPE == Dtype::bfloat16, bfloat16, float16>;
  constexpr bool is_half = Dtype::DTYPE == Dtype::bfloat16 || Dtype::DTYPE == Dtype::float16;
  f(Numbers<std::conditional_t<is_half, half, real>, real>());
}
#else
bool has(Dtype) { return true; }

template <class F>
void choose(Dtype dtype, F f) {
  choose_numbers(dtype, f);
}
#endif

#define STDANO_START(Call, function, dtype)                                                   \
  void start(const Call& call) {                                                              \
    choose(dtype, [&](auto n) {                                                               \
      function<typename decltype(n)::scalar, typename decltype(n)::real>(call, nullptr);      \
    });                                                                                       \
  }
STDANO_START(EncodeCall, encode, call.neurons.o[0].dtype)
STDANO_START(DecodeCall, decode, call.dtype)
STDANO_START(SuperSumsCall, super_sums, call.dtype)
STDANO_START(SuperBackwardCall, super_backward, call.neurons.o[0].dtype)
STDANO_START(ChannelSumsCall, channel_sums, call.dtype)
STDANO_START(ChannelAffineCall, channel_affine, call.dtype)

void slices(const Geometry& g, int64_t* columns, int64_t* slabs) {
  const Slices s = make_slices(g);
  *columns = s.columns;
  *slabs = s.slabs;
}

const bool registered = [] {
  channel_device = {start, start, start, start, start, start, slices, has};
  return true;
}();

}  // namespace
}  // namespace host_device
}  // namespace stdano
