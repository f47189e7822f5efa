/* What a failed call of the CUDA runtime means for the user. */
#include "device/cuda/cuda.h"

static const char newer_driver[] = "Install driver 580 or later: apt install nvidia-driver-580 (Ubuntu) or "
                                   "nvidia-driver (Debian), and restart.";
static const char go_on[] =
    "A run goes on from its last checkpoint with --resume. If it comes again, look for Xid in dmesg.";

/* `what` stands in place of the runtime's own words, which say less. */
static const struct failure {
    cudaError_t status;
    enum error_code code;
    const char *what, *fix;
} failures[] = {
    {cudaErrorMemoryAllocation, ERROR_MEMORY, "no memory is left",
     "End other programs on this GPU; nvidia-smi lists them."},
    {cudaErrorInsufficientDriver, ERROR_FAILED, "NVIDIA's driver is too old for it", newer_driver},
    {cudaErrorUnsupportedPtxVersion, ERROR_FAILED, "NVIDIA's driver is too old for it", newer_driver},
    {cudaErrorSystemDriverMismatch, ERROR_FAILED,
     "the parts of NVIDIA's driver are of different versions, as after an update", "Restart the machine."},
    {cudaErrorSystemNotReady, ERROR_FAILED, "the connections between the GPUs are not ready",
     "Start NVIDIA's fabric manager: systemctl start nvidia-fabricmanager."},
    {cudaErrorDevicesUnavailable, ERROR_FAILED,
     "another program has the GPU for itself, or it cannot be used",
     "Look at nvidia-smi: its processes and its compute mode."},
    {cudaErrorNoKernelImageForDevice, ERROR_FAILED, "this hone was not compiled for this GPU",
     "Build with -DHONE_CUDA_ARCHITECTURES=all."},
    {cudaErrorECCUncorrectable, ERROR_FAILED, "the GPU's memory lost bits that could not be corrected",
     "Restart the machine; a run goes on from its last checkpoint with --resume. nvidia-smi -q -d ECC counts "
     "such errors."},
    {cudaErrorIllegalAddress, ERROR_FAILED, "the GPU stopped at an address that is none", go_on},
    {cudaErrorMisalignedAddress, ERROR_FAILED, "the GPU stopped at a misaligned address", go_on},
    {cudaErrorIllegalInstruction, ERROR_FAILED, "the GPU stopped at an illegal instruction", go_on},
    {cudaErrorHardwareStackError, ERROR_FAILED, "the GPU stopped at an error of its stack", go_on},
    {cudaErrorLaunchFailure, ERROR_FAILED, "the GPU stopped in the middle of its work", go_on},
    {cudaErrorLaunchTimeout, ERROR_FAILED, "the system stopped the GPU after a time limit", go_on},
    {cudaErrorUnknown, ERROR_FAILED, "the GPU does not answer as it should", go_on},
};

bool cuda_check(cudaError_t status, const char *doing, struct error *err) {
    if (status == cudaSuccess) return true;
    for (size_t i = 0; i < sizeof failures / sizeof *failures; i++) {
        const struct failure *f = &failures[i];
        if (f->status != status) continue;
        error_set(err, f->code, "cuda", "cannot %s: %s", doing, f->what);
        return error_fix(err, "%s", f->fix);
    }
    error_set(err, ERROR_FAILED, "cuda", "cannot %s: %s", doing, cudaGetErrorString(status));
    return error_fix(err, "%s", go_on);
}

/* No driver at all, or an old one. */
static bool refuse_driver(struct error *err) {
    int version = 0;
    if (cudaDriverGetVersion(&version) != cudaSuccess || !version)
        error_set(err, ERROR_FAILED, "cuda", "NVIDIA's driver (libcuda.so.1) is missing");
    else
        error_set(err, ERROR_FAILED, "cuda", "NVIDIA's driver is too old: it serves CUDA %d.%d, not %d",
                  version / 1000, version % 1000 / 10, CUDART_VERSION / 1000);
    return error_fix(err, "%s", newer_driver);
}

bool cuda_count(int *count, struct error *err) {
    cudaError_t status = cudaGetDeviceCount(count);
    if (status == cudaErrorInsufficientDriver || status == cudaErrorStubLibrary) return refuse_driver(err);
    if (status == cudaErrorNoDevice || (status == cudaSuccess && *count < 1)) {
        error_set(err, ERROR_FAILED, "cuda", "there is no NVIDIA GPU that this process can see");
        return error_fix(err, "Look at nvidia-smi and at CUDA_VISIBLE_DEVICES.");
    }
    return cuda_check(status, "look for GPUs", err);
}
