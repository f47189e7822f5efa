# ---- the program, the public headers and the library's names (tests/cli) ----
if(TARGET hone)
  set(cli ${CMAKE_CURRENT_SOURCE_DIR}/cli)
  file(GLOB cases CONFIGURE_DEPENDS cli/cases/*)
  foreach(case ${cases})
    get_filename_component(name ${case} NAME)
    add_test(NAME cli.output.${name} COMMAND ${cli}/test_output.sh $<TARGET_FILE:hone> ${case})
  endforeach()
  add_test(NAME cli.interrupt COMMAND python3 ${cli}/test_interrupt.py $<TARGET_FILE:hone>)
  add_test(NAME cli.half COMMAND python3 ${cli}/test_half.py $<TARGET_FILE:hone>)
  add_test(NAME cli.nonfinite COMMAND python3 ${cli}/test_nonfinite.py $<TARGET_FILE:hone>)
  add_test(NAME cli.headers COMMAND ${cli}/test_headers.sh ${CMAKE_SOURCE_DIR}/include)
  add_test(NAME cli.document COMMAND ${cli}/test_document.sh $<TARGET_FILE:hone> ${CMAKE_SOURCE_DIR}/docs/settings.md)
  if(NOT HONE_SANITIZE)
    add_test(NAME cli.symbols COMMAND ${cli}/test_symbols.sh $<TARGET_FILE:hone_shared>)
    add_test(NAME cli.startup COMMAND ${cli}/test_startup.sh $<TARGET_FILE:hone>)
  endif()
endif()
# ---- end of tests/cli ----
# ---- ranks: a run that several processes share ----
if(TARGET hone)
  add_test(NAME e2e.ranks COMMAND python3 ${CMAKE_CURRENT_SOURCE_DIR}/e2e/ranks.py $<TARGET_FILE:hone>)
  set_tests_properties(e2e.ranks PROPERTIES TIMEOUT 3000)
endif()
# ---- end of ranks ----
# ---- memory: plans and what runs measured (tests/e2e/memory.py) ----
if(TARGET hone)
  add_test(NAME e2e.memory COMMAND python3 ${CMAKE_CURRENT_SOURCE_DIR}/e2e/memory.py $<TARGET_FILE:hone>)
  set_tests_properties(e2e.memory PROPERTIES TIMEOUT 3000)
  if(HONE_SANITIZE)
    set_tests_properties(e2e.memory PROPERTIES ENVIRONMENT HONE_SANITIZED=1) # its shadow memory is in no plan
  endif()
endif()
# ---- end of memory ----
# ---- rates of the products, beside oneDNN where it is installed (tests/perf) ----
if(TARGET hone_device)
  add_executable(bench_gemm perf/bench_gemm.c)
  target_link_libraries(bench_gemm PRIVATE hone_device)
  find_library(DNNL_LIBRARY dnnl)
  find_path(DNNL_INCLUDE dnnl.h PATH_SUFFIXES oneapi/dnnl)
  if(DNNL_LIBRARY AND DNNL_INCLUDE)
    target_compile_definitions(bench_gemm PRIVATE HONE_ONEDNN)
    target_include_directories(bench_gemm SYSTEM PRIVATE ${DNNL_INCLUDE})
    target_link_libraries(bench_gemm PRIVATE ${DNNL_LIBRARY})
  endif()
endif()
# ---- end of tests/perf ----
# ---- golden models (tests/golden) ----
if(TARGET hone_score)
  add_library(golden_probe STATIC golden/probe.c)
  target_include_directories(golden_probe PUBLIC ${CMAKE_CURRENT_SOURCE_DIR})
  target_link_libraries(golden_probe PUBLIC hone_score)
  target_link_libraries(test_golden_models PRIVATE golden_probe)
  target_link_libraries(test_golden_convert PRIVATE golden_probe)
  add_executable(golden_driver golden/driver.c)
  target_link_libraries(golden_driver PRIVATE golden_probe)
endif()
# ---- end of golden models ----
# ---- the tokenizer against other tokenizers ----
if(TARGET hone_text AND TARGET hone_format)
  add_executable(tokenizer_driver golden/tokenizer_driver.c)
  target_link_libraries(tokenizer_driver PRIVATE hone_text hone_format)
  foreach(subject vocabularies windows)
    add_test(NAME golden.tokenizer_${subject}
      COMMAND python3 ${CMAKE_CURRENT_SOURCE_DIR}/golden/tokenizer_${subject}.py $<TARGET_FILE:tokenizer_driver>)
    set_tests_properties(golden.tokenizer_${subject} PROPERTIES SKIP_RETURN_CODE 77 TIMEOUT 3000)
  endforeach()
endif()
# ---- end of the tokenizer ----
# ---- the CUDA module: a module of another version, and the tests that need a GPU (ctest -L gpu) ----
if(TARGET test_device_module)
  add_library(module_other MODULE unit/module_other.c)
  set_target_properties(module_other PROPERTIES OUTPUT_NAME hone_cuda LIBRARY_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests/other)
  add_dependencies(test_device_module module_other)
endif()
if(TARGET hone_cuda)
  foreach(test test_device_ops test_golden_models)
    add_test(NAME gpu.${test} COMMAND ${test})
    set_tests_properties(gpu.${test} PROPERTIES LABELS gpu SKIP_RETURN_CODE 77 TIMEOUT 600
      ENVIRONMENT "HONE_TEST_DEVICE=cuda;HONE_MODULES=${CMAKE_BINARY_DIR}")
  endforeach()
endif()
# ---- end of the CUDA module ----
# ---- faults: what their tests share, and the log of system calls (tests/fault) ----
if(TARGET test_job_run)
  add_library(fault_support STATIC fault/scene.c fault/places.c)
  target_link_libraries(fault_support PUBLIC test_support hone_job)
  target_compile_definitions(fault_support PRIVATE TEST_DATA="${CMAKE_CURRENT_SOURCE_DIR}")
  foreach(test run tools full_disk)
    target_link_libraries(test_job_${test} PRIVATE fault_support)
  endforeach()
  if(APPLE) # its linker has no --wrap
    set_target_properties(test_job_write_log PROPERTIES EXCLUDE_FROM_ALL ON)
    set_tests_properties(fault.test_job_write_log PROPERTIES DISABLED ON)
  endif()
  set(HONE_WRAPPED open close write ftruncate fsync mkdir unlink rmdir rename renameat2)
  list(TRANSFORM HONE_WRAPPED PREPEND "-Wl,--wrap=")
  target_sources(test_job_write_log PRIVATE fault/disk_log.c fault/disk_log_calls.c)
  target_link_libraries(test_job_write_log PRIVATE fault_support ${HONE_WRAPPED})
endif()
# ---- end of faults ----
