// The CUDA kernels of one neuron on the host: -DNEURON=LIF -DNEURON_INDEX=0. With
// -DDTYPE=float32 only those of one dtype, with the hard reset: an eighth to compile.
#define STDANO_ISA host_device
#include "host_shim.h"

#include "cuda/launch.h"

namespace stdano {
namespace host_device {
namespace {

#if defined(DTYPE)
template <Dtype>
struct Scalar;
template <>
struct Scalar<Dtype::float32> { using type = float; };
template <>
struct Scalar<Dtype::float64> { using type = double; };
template <>
struct Scalar<Dtype::bfloat16> { using type = bfloat16; };
template <>
struct Scalar<Dtype::float16> { using type = float16; };
using scalar = Scalar<Dtype::DTYPE>::type;
using real = std::conditional_t<Dtype::DTYPE == Dtype::float64, double, float>;

bool has(Dtype dtype, bool soft_reset) { return dtype == Dtype::DTYPE && !soft_reset; }

template <class Call>
void start(const Call& call) {
  if (call.g.N == 0) return;  // as in launch()
  run<Types<NEURON<real, false>, scalar, real>>(call, nullptr);
}
#else
bool has(Dtype, bool) { return true; }

template <class Call>
void start(const Call& call) {
  launch<NEURON>(call, nullptr);
}
#endif

void slices(const Geometry& g, int64_t* columns, int64_t* slabs) {
  const Slices s = make_slices(g);
  *columns = s.columns;
  *slabs = s.slabs;
}

const bool registered = [] {
  devices[NEURON_INDEX] = {start<ForwardCall>,
                           start<BackwardCall>,
                           slices,
                           [](int64_t n, int64_t d) { return divide(n, make_divisor(d)); },
                           [](int64_t n, int64_t d) { return remainder(n, make_divisor(d)); },
                           has};
  return true;
}();

}  // namespace
}  // namespace host_device
}  // namespace stdano
