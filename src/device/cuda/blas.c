#include "device/cuda/blas.h"

#include <cublasLt.h>
#include <dlfcn.h>
#include <string.h>

#include "base/mem.h"
#include "device/cuda/cuda.h"

/* One shape's product as the library wants it, and the algorithm it chose. */
struct key {
    int64_t m, n, k, ldx, ldw, ldy;
    uint32_t x_alignment, w_alignment, y_alignment;
    enum dtype type, y_type;
    bool x_transposed, w_transposed, adds, fp8;
};
struct choice {
    struct key key;
    bool used, refused; /* refused: the library has nothing for this shape */
    cublasLtMatmulDesc_t product;
    cublasLtMatrixLayout_t x, w, y;
    cublasLtMatmulAlgo_t algorithm;
};
enum { choices = 4096 };

struct blas {
    void *library;
    char *path; /* from mem_alloc; NULL: found by the system's loader */
    cublasLtHandle_t handle;
    struct choice *table; /* [choices], by the hash of the key */
    int filled;
    bool tf32;
    __typeof__(cublasLtCreate) *create;
    __typeof__(cublasLtDestroy) *destroy;
    __typeof__(cublasLtGetVersion) *version;
    __typeof__(cublasLtMatmul) *matmul;
    __typeof__(cublasLtMatmulDescCreate) *desc_create;
    __typeof__(cublasLtMatmulDescDestroy) *desc_destroy;
    __typeof__(cublasLtMatmulDescSetAttribute) *desc_set;
    __typeof__(cublasLtMatrixLayoutCreate) *layout_create;
    __typeof__(cublasLtMatrixLayoutDestroy) *layout_destroy;
    __typeof__(cublasLtMatmulPreferenceCreate) *preference_create;
    __typeof__(cublasLtMatmulPreferenceDestroy) *preference_destroy;
    __typeof__(cublasLtMatmulPreferenceSetAttribute) *preference_set;
    __typeof__(cublasLtMatmulAlgoGetHeuristic) *heuristic;
    __typeof__(cublasLtMatmulAlgoConfigGetAttribute) *algorithm_get;
};

static const char soname[] = "libcublasLt.so.13";

static bool find_functions(struct blas *b, struct error *err) {
    const struct cuda_function rows[] = {{"cublasLtCreate", &b->create},
                                         {"cublasLtDestroy", &b->destroy},
                                         {"cublasLtGetVersion", &b->version},
                                         {"cublasLtMatmul", &b->matmul},
                                         {"cublasLtMatmulDescCreate", &b->desc_create},
                                         {"cublasLtMatmulDescDestroy", &b->desc_destroy},
                                         {"cublasLtMatmulDescSetAttribute", &b->desc_set},
                                         {"cublasLtMatrixLayoutCreate", &b->layout_create},
                                         {"cublasLtMatrixLayoutDestroy", &b->layout_destroy},
                                         {"cublasLtMatmulPreferenceCreate", &b->preference_create},
                                         {"cublasLtMatmulPreferenceDestroy", &b->preference_destroy},
                                         {"cublasLtMatmulPreferenceSetAttribute", &b->preference_set},
                                         {"cublasLtMatmulAlgoGetHeuristic", &b->heuristic},
                                         {"cublasLtMatmulAlgoConfigGetAttribute", &b->algorithm_get}};
    const char *missing = cuda_functions(b->library, rows, sizeof rows / sizeof *rows);
    return !missing || error_set(err, ERROR_FAILED, "cuda", "%s has no function %s", soname, missing);
}

bool blas_open(struct blas **out, bool tf32, struct error *err) {
    struct blas *b = mem_calloc(1, sizeof *b);
    *out = b;
    if (!b) return error_no_memory(err, "cuda", sizeof *b);
    b->tf32 = tf32;
    b->table = mem_calloc(choices, sizeof *b->table);
    bool ok = b->table || error_no_memory(err, "cuda", choices * sizeof *b->table);
    if (ok && !(b->library = cuda_library(soname, &b->path))) {
        error_set(err, ERROR_FAILED, "cuda", "the library %s is missing", soname);
        ok = error_fix(err,
                       "Install it: apt install libcublas-13-0; or pip install nvidia-cublas, and put its "
                       "folder nvidia/cu13/lib into LD_LIBRARY_PATH.");
    }
    ok = ok && find_functions(b, err);
    if (ok && b->create(&b->handle) != CUBLAS_STATUS_SUCCESS)
        ok = error_set(err, ERROR_FAILED, "cuda", "%s does not start on this GPU", soname);
    if (!ok) blas_close(out);
    return ok;
}

static void drop_choice(struct blas *b, struct choice *c) {
    if (c->product) b->desc_destroy(c->product);
    if (c->x) b->layout_destroy(c->x);
    if (c->w) b->layout_destroy(c->w);
    if (c->y) b->layout_destroy(c->y);
    memset(c, 0, sizeof *c);
}

void blas_close(struct blas **handle) {
    struct blas *b = *handle;
    if (!b) return;
    for (int i = 0; b->table && i < choices; i++)
        if (b->table[i].used) drop_choice(b, &b->table[i]);
    if (b->handle) b->destroy(b->handle);
    if (b->library) dlclose(b->library);
    mem_free(b->path);
    mem_free(b->table);
    mem_free(b);
    *handle = NULL;
}

const char *blas_path(const struct blas *b) { return b->path ? b->path : soname; }
size_t blas_version(const struct blas *b) { return b->version(); }

/* The largest power of two up to 256 that divides an address and the bytes of a row. */
static uint32_t alignment_of(const void *data, int64_t ld, uintptr_t size) {
    uintptr_t bits = (uintptr_t)data | (uintptr_t)ld * size | 256;
    return (uint32_t)(bits & (~bits + 1));
}

static struct key key_of(const struct product *p) {
    struct key key;
    memset(&key, 0, sizeof key); /* the gaps are compared too */
    key.m = p->m;
    key.n = p->n;
    key.k = p->k;
    key.ldx = p->ldx;
    key.ldw = p->ldw;
    key.ldy = p->y.stride;
    uintptr_t size = p->fp8 ? 1 : p->type == DTYPE_F32 ? 4 : 2;
    key.x_alignment = alignment_of(p->x, p->ldx, size);
    key.w_alignment = alignment_of(p->w, p->ldw, size);
    key.y_alignment = alignment_of(p->y.data, p->y.stride, p->y.type == DTYPE_F32 ? 4 : 2);
    key.fp8 = p->fp8;
    key.type = p->type;
    key.y_type = p->y.type;
    key.x_transposed = p->x_transposed;
    key.w_transposed = p->w_transposed;
    key.adds = p->beta != 0;
    return key;
}

static cudaDataType_t data_type(enum dtype type) {
    return type == DTYPE_BF16 ? CUDA_R_16BF : type == DTYPE_F16 ? CUDA_R_16F : CUDA_R_32F;
}

/* Factors of rows; sums go on in the tensor cores' own width, as in training elsewhere. */
static bool describe_fp8(struct blas *b, cublasLtMatmulDesc_t product) {
    const int32_t mode = CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F;
    const int8_t fast = 1;
    return !b->desc_set(product, CUBLASLT_MATMUL_DESC_A_SCALE_MODE, &mode, sizeof mode) &&
           !b->desc_set(product, CUBLASLT_MATMUL_DESC_B_SCALE_MODE, &mode, sizeof mode) &&
           !b->desc_set(product, CUBLASLT_MATMUL_DESC_FAST_ACCUM, &fast, sizeof fast);
}

static bool set_scales(struct blas *b, const struct choice *c, const struct product *p) {
    return !b->desc_set(c->product, CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, &p->w_scales, sizeof p->w_scales) &&
           !b->desc_set(c->product, CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, &p->x_scales, sizeof p->x_scales);
}

/* The library's matrices lie by columns: y is its [n, m], w its left operand, x its right one. */
static bool describe(struct blas *b, struct choice *c) {
    const struct key *k = &c->key;
    cublasOperation_t w_op = k->w_transposed ? CUBLAS_OP_T : CUBLAS_OP_N,
                      x_op = k->x_transposed ? CUBLAS_OP_T : CUBLAS_OP_N;
    cudaDataType_t type = k->fp8 ? CUDA_R_8F_E4M3 : data_type(k->type);
    cublasComputeType_t compute =
        b->tf32 && type == CUDA_R_32F ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F;
    return !b->desc_create(&c->product, compute, CUDA_R_32F) && (!k->fp8 || describe_fp8(b, c->product)) &&
           !b->desc_set(c->product, CUBLASLT_MATMUL_DESC_TRANSA, &w_op, sizeof w_op) &&
           !b->desc_set(c->product, CUBLASLT_MATMUL_DESC_TRANSB, &x_op, sizeof x_op) &&
           !b->layout_create(&c->w, type, (uint64_t)(k->w_transposed ? k->k : k->n),
                             (uint64_t)(k->w_transposed ? k->n : k->k), k->ldw) &&
           !b->layout_create(&c->x, type, (uint64_t)(k->x_transposed ? k->m : k->k),
                             (uint64_t)(k->x_transposed ? k->k : k->m), k->ldx) &&
           !b->layout_create(&c->y, data_type(k->y_type), (uint64_t)k->n, (uint64_t)k->m, k->ldy);
}

enum { offers = 8 };

/* Which of the library's offers is taken: its first, but for large products with short sums the first of the
 * kernels that multiply one tile while they write another (on Hopper those of custom option 1 or 2), which
 * its estimate counts too low. Measured with cuBLASLt 13.1 on an H100, m 16,384, k 512 to 4,112: 2 to 17 %
 * less time; with longer sums they take up to 5 % more. A rule and not a timing, so that every run takes the
 * same. */
static int best_offer(struct blas *b, const struct key *k, const cublasLtMatmulHeuristicResult_t *offer,
                      int count) {
    bool short_sums = k->m >= 2048 && k->n >= 1024 && k->k <= 4352 && k->type != DTYPE_F32 && !k->fp8;
    for (int i = 0; short_sums && i < count; i++) {
        int option = 0;
        size_t written;
        if (offer[i].state == CUBLAS_STATUS_SUCCESS &&
            !b->algorithm_get(&offer[i].algo, CUBLASLT_ALGO_CONFIG_CUSTOM_OPTION, &option, sizeof option,
                              &written) &&
            (option == 1 || option == 2))
            return i;
    }
    return 0;
}

static bool select_algorithm(struct blas *b, struct choice *c) {
    /* Not in place: there the order of additions is that in which blocks arrive. */
    const uint32_t sums = CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE | CUBLASLT_REDUCTION_SCHEME_OUTPUT_TYPE;
    const uint64_t room = blas_workspace;
    cublasLtMatmulPreference_t preference = NULL;
    cublasLtMatmulHeuristicResult_t found[offers];
    int count = 0;
    const struct key *k = &c->key;
    bool ok =
        !b->preference_create(&preference) &&
        !b->preference_set(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &room, sizeof room) &&
        !b->preference_set(preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &sums, sizeof sums) &&
        !b->preference_set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, &k->w_alignment, 4) &&
        !b->preference_set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, &k->x_alignment, 4) &&
        !b->preference_set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, &k->y_alignment, 4) &&
        !b->preference_set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, &k->y_alignment, 4) &&
        !b->heuristic(b->handle, c->product, c->w, c->x, c->y, c->y, preference, offers, found, &count) &&
        count > 0;
    int taken = ok ? best_offer(b, k, found, count) : 0;
    ok = ok && found[taken].state == CUBLAS_STATUS_SUCCESS;
    if (preference) b->preference_destroy(preference);
    if (ok) c->algorithm = found[taken].algo;
    return ok;
}

static struct choice *choose(struct blas *b, const struct product *p) {
    struct key key = key_of(p);
    uint64_t hash = 1469598103934665603u; /* FNV-1a */
    for (size_t i = 0; i < sizeof key; i++) hash = (hash ^ ((const unsigned char *)&key)[i]) * 1099511628211u;
    if (b->filled > choices / 2) { /* very many row counts: start again */
        for (int i = 0; i < choices; i++)
            if (b->table[i].used) drop_choice(b, &b->table[i]);
        b->filled = 0;
    }
    size_t at = hash % choices;
    while (b->table[at].used && memcmp(&b->table[at].key, &key, sizeof key)) at = (at + 1) % choices;
    struct choice *c = &b->table[at];
    if (!c->used) {
        c->key = key;
        c->used = true;
        c->refused = !describe(b, c) || (key.fp8 && !set_scales(b, c, p)) || !select_algorithm(b, c);
        b->filled++;
    }
    return c;
}

static void run_plain(const struct product *p, cudaStream_t stream) {
    struct plain_product plain = {
        .x = {(void *)(uintptr_t)p->x, p->type, p->ldx},
        .w = {(void *)(uintptr_t)p->w, p->type, p->ldw},
        .y = p->y,
        .m = p->m,
        .n = p->n,
        .k = p->k,
        .x_row = p->x_transposed ? 1 : p->ldx,
        .x_column = p->x_transposed ? p->ldx : 1,
        .w_row = p->w_transposed ? 1 : p->ldw,
        .w_column = p->w_transposed ? p->ldw : 1,
        .alpha = p->alpha,
        .beta = p->beta,
        .addend = p->addend ? p->addend : p->y.data,
    };
    cuda_plain_product(&plain, stream);
}

bool blas_product(struct blas *b, const struct product *p, void *workspace, cudaStream_t stream,
                  struct error *err) {
    if (!p->m || !p->n) return true;
    const struct choice *c = choose(b, p);
    if (p->fp8 && (c->refused || !set_scales(b, c, p))) {
        error_set(err, ERROR_FAILED, "cuda", "cuBLASLt has no product of %lld x %lld x %lld in fp8",
                  (long long)p->m, (long long)p->n, (long long)p->k);
        return error_fix(err, "Take --compute bf16.");
    }
    if (c->refused) {
        run_plain(p, stream);
        return true;
    }
    cublasStatus_t status = b->matmul(b->handle, c->product, &p->alpha, p->w, c->w, p->x, c->x, &p->beta,
                                      p->addend ? p->addend : p->y.data, c->y, p->y.data, c->y, &c->algorithm,
                                      workspace, blas_workspace, stream);
    if (status == CUBLAS_STATUS_SUCCESS) return true;
    /* The library only says that it could not; the runtime says why. */
    return cuda_check(cudaGetLastError(), "multiply", err) &&
           error_set(err, ERROR_FAILED, "cuda", "a product of %lld x %lld x %lld failed (status %d)",
                     (long long)p->m, (long long)p->n, (long long)p->k, (int)status);
}
