# The CUDA device: a module of its own, built where a toolkit is found (nvcc with the headers of cuBLASLt), and
# loaded at run time. Kernels are compiled by nvcc directly, so that a toolkit of pip wheels serves as well.
#   -DHONE_CUDA=OFF|AUTO|ON      ON: fail where there is none. AUTO
#   -DHONE_CUDA_ARCHITECTURES=   compute capabilities, "80;86;89;90a;100a;120;120-virtual" for "all" (releases);
#                                -virtual: as PTX, which the driver compiles for any later GPU
set(HONE_CUDA OFF CACHE STRING "build the CUDA module: OFF, AUTO or ON")
set(HONE_CUDA_ARCHITECTURES "80;80-virtual;90a" CACHE STRING "compute capabilities that kernels are compiled for")
if(HONE_CUDA STREQUAL OFF OR HONE_SANITIZE OR HONE_FUZZ OR APPLE)
  return()
endif()

find_program(HONE_NVCC nvcc HINTS $ENV{CUDA_HOME}/bin $ENV{CUDA_PATH}/bin /usr/local/cuda/bin
  ${CMAKE_SOURCE_DIR}/.cache/cuda-home/bin)
if(HONE_NVCC)
  get_filename_component(cuda_nvcc ${HONE_NVCC} REALPATH)
  get_filename_component(cuda_home ${cuda_nvcc}/../.. ABSOLUTE)
  find_path(HONE_CUDA_INCLUDE NAMES cublasLt.h HINTS ${cuda_home}/include /usr/local/cuda/include)
  find_library(HONE_CUDART NAMES libcudart_static.a HINTS ${cuda_home}/lib64 ${cuda_home}/lib /usr/local/cuda/lib64)
endif()
if(NOT HONE_NVCC OR NOT HONE_CUDA_INCLUDE OR NOT HONE_CUDART)
  if(HONE_CUDA STREQUAL ON)
    message(FATAL_ERROR "HONE_CUDA is ON: nvcc, cublasLt.h and libcudart_static.a are needed (docs/cuda.md)")
  endif()
  message(STATUS "No CUDA toolkit: the module libhone_cuda is not built")
  return()
endif()

set(cuda_architectures ${HONE_CUDA_ARCHITECTURES})
if(cuda_architectures STREQUAL all)
  set(cuda_architectures 80 86 89 90a 100a 120 120-virtual)
endif()
foreach(arch ${cuda_architectures})
  if(arch MATCHES "^(.*)-virtual$")
    list(APPEND cuda_gencode -gencode arch=compute_${CMAKE_MATCH_1},code=compute_${CMAKE_MATCH_1})
  else()
    list(APPEND cuda_gencode -gencode arch=compute_${arch},code=sm_${arch})
  endif()
  if(arch STREQUAL 90a)
    list(APPEND cuda_gencode -DHONE_SM90A) # Hopper's own instructions are there
  endif()
endforeach()

# No fused multiply-add that is not written (fmaf), as everywhere in hone: stored types decode to the same bits.
file(GLOB cuda_kernels CONFIGURE_DEPENDS src/device/cuda/*.cu)
foreach(source ${cuda_kernels})
  get_filename_component(name ${source} NAME_WE)
  set(object ${CMAKE_BINARY_DIR}/cuda/${name}.o)
  add_custom_command(OUTPUT ${object}
    COMMAND ${HONE_NVCC} -std=c++20 -O3 --fmad=false -lineinfo -Werror all-warnings ${cuda_gencode}
      -I${CMAKE_SOURCE_DIR}/src -I${HONE_CUDA_INCLUDE} -Xcompiler -fPIC,-fvisibility=hidden
      -MD -MF ${object}.d -c ${source} -o ${object}
    DEPENDS ${source} DEPFILE ${object}.d COMMENT "Building CUDA object ${name}.o")
  list(APPEND cuda_objects ${object})
endforeach()
file(MAKE_DIRECTORY ${CMAKE_BINARY_DIR}/cuda)

file(GLOB cuda_sources CONFIGURE_DEPENDS src/device/cuda/*.c)
add_library(hone_cuda MODULE ${cuda_sources} ${cuda_objects})
set_target_properties(hone_cuda PROPERTIES LINKER_LANGUAGE C LIBRARY_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR})
set_source_files_properties(${cuda_objects} PROPERTIES EXTERNAL_OBJECT ON GENERATED ON)
target_include_directories(hone_cuda SYSTEM PRIVATE ${HONE_CUDA_INCLUDE})
target_link_libraries(hone_cuda PRIVATE hone_device ${HONE_CUDART} stdc++ dl rt)
target_link_options(hone_cuda PRIVATE -Wl,-z,defs -Wl,--exclude-libs,ALL)
install(TARGETS hone_cuda LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR}/hone)
