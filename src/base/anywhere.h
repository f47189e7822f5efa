/* ANYWHERE before an inline function, ANYWHERE_TABLE before a constant table: CUDA kernels may use them too.
 */
#ifndef HONE_BASE_ANYWHERE_H
#define HONE_BASE_ANYWHERE_H

#if defined(__CUDACC__)
#define ANYWHERE __host__ __device__
#define ANYWHERE_TABLE __device__
#else
#define ANYWHERE
#define ANYWHERE_TABLE
#endif

#endif
