// Streams and events, where everything is synchronous, and the rest of the runtime: accepted without effect, or not
// supported.
#include <cuda_runtime_api.h>

#include <cstdio>
#include <cstdlib>

extern "C" {

static cudaError_t make(void** p) {
  *p = malloc(8);
  return cudaSuccess;
}

cudaError_t cudaDeviceSynchronize() { return cudaSuccess; }
cudaError_t cudaStreamCreate(cudaStream_t* s) { return make((void**)s); }
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* s, unsigned) { return make((void**)s); }
cudaError_t cudaStreamCreateWithPriority(cudaStream_t* s, unsigned, int) { return make((void**)s); }
cudaError_t cudaStreamDestroy(cudaStream_t) { return cudaSuccess; }
cudaError_t cudaStreamSynchronize(cudaStream_t) { return cudaSuccess; }
cudaError_t cudaStreamQuery(cudaStream_t) { return cudaSuccess; }
cudaError_t cudaStreamWaitEvent(cudaStream_t, cudaEvent_t, unsigned) { return cudaSuccess; }
cudaError_t cudaStreamGetPriority(cudaStream_t, int* priority) {
  *priority = 0;
  return cudaSuccess;
}
cudaError_t cudaStreamIsCapturing(cudaStream_t, cudaStreamCaptureStatus* s) {
  *s = cudaStreamCaptureStatusNone;
  return cudaSuccess;
}
cudaError_t cudaThreadExchangeStreamCaptureMode(cudaStreamCaptureMode*) { return cudaSuccess; }
cudaError_t cudaEventCreate(cudaEvent_t* e) { return make((void**)e); }
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* e, unsigned) { return make((void**)e); }
cudaError_t cudaEventDestroy(cudaEvent_t) { return cudaSuccess; }
cudaError_t cudaEventRecord(cudaEvent_t, cudaStream_t) { return cudaSuccess; }
cudaError_t cudaEventRecordWithFlags(cudaEvent_t, cudaStream_t, unsigned) { return cudaSuccess; }
cudaError_t cudaEventQuery(cudaEvent_t) { return cudaSuccess; }
cudaError_t cudaEventSynchronize(cudaEvent_t) { return cudaSuccess; }
cudaError_t cudaEventElapsedTime(float* ms, cudaEvent_t, cudaEvent_t) {
  *ms = 0;  // there is no meaningful time
  return cudaSuccess;
}

cudaError_t cudaGetDriverEntryPointByVersion(const char*, void** f, unsigned, unsigned long long, cudaDriverEntryPointQueryResult* r) {
  *f = nullptr;
  if (r) *r = cudaDriverEntryPointSymbolNotFound;
  return cudaErrorSymbolNotFound;
}

}  // extern "C"

// ---- accepted without effect, and not supported (defined under their symbol, without the prototype)

extern "C" int gpusim_capture_info(void*, int* status, ...) __asm__("cudaStreamGetCaptureInfo");
int gpusim_capture_info(void*, int* status, ...) {
  *status = 0;
  return 0;
}

#define IGNORED(name)                              \
  extern "C" int gpusim_##name() __asm__(#name); \
  int gpusim_##name() { return 0; }

#define UNSUPPORTED(name)                                                                  \
  extern "C" int gpusim_##name() __asm__(#name);                                         \
  int gpusim_##name() {                                                                   \
    if (getenv("GPUSIM_TRACE")) fprintf(stderr, "gpusim: %s is not supported\n", #name); \
    return cudaErrorNotSupported;                                                          \
  }

IGNORED(cudaDeviceEnablePeerAccess)
IGNORED(cudaHostRegister)
IGNORED(cudaHostUnregister)
IGNORED(cudaMemPoolSetAttribute)
IGNORED(cudaMemPoolTrimTo)
IGNORED(cudaProfilerStart)
IGNORED(cudaProfilerStop)

UNSUPPORTED(cudaDeviceGetGraphMemAttribute)
UNSUPPORTED(cudaDeviceSetGraphMemAttribute)
UNSUPPORTED(cudaGetSymbolAddress)
UNSUPPORTED(cudaGraphAddNode)
UNSUPPORTED(cudaGraphConditionalHandleCreate)
UNSUPPORTED(cudaGraphDestroy)
UNSUPPORTED(cudaGraphExecDestroy)
UNSUPPORTED(cudaGraphGetNodes)
UNSUPPORTED(cudaGraphInstantiateWithFlags)
UNSUPPORTED(cudaGraphLaunch)
UNSUPPORTED(cudaGraphNodeGetDependencies)
UNSUPPORTED(cudaGraphRetainUserObject)
UNSUPPORTED(cudaIpcCloseMemHandle)
UNSUPPORTED(cudaIpcGetEventHandle)
UNSUPPORTED(cudaIpcGetMemHandle)
UNSUPPORTED(cudaIpcOpenEventHandle)
UNSUPPORTED(cudaIpcOpenMemHandle)
UNSUPPORTED(cudaKernelSetAttributeForDevice)
UNSUPPORTED(cudaLaunchHostFunc)
UNSUPPORTED(cudaLibraryGetKernel)
UNSUPPORTED(cudaLibraryLoadData)
UNSUPPORTED(cudaLibraryUnload)
UNSUPPORTED(cudaMemPoolGetAttribute)
UNSUPPORTED(cudaMemPoolSetAccess)
UNSUPPORTED(cudaMemcpy2DAsync)
UNSUPPORTED(cudaMemcpyToSymbol)
UNSUPPORTED(cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags)
UNSUPPORTED(cudaStreamAddCallback)
UNSUPPORTED(cudaStreamBeginCapture)
UNSUPPORTED(cudaStreamBeginCaptureToGraph)
UNSUPPORTED(cudaStreamEndCapture)
UNSUPPORTED(cudaStreamUpdateCaptureDependencies)
UNSUPPORTED(cudaUserObjectCreate)
UNSUPPORTED(cudaUserObjectRelease)
