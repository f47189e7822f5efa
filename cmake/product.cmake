# Links of the upper layers, the program, the library, and what `cmake --install` puts where.
include(GNUInstallDirs)

if(TARGET hone_train)
  target_link_libraries(hone_train PUBLIC PkgConfig::FYAML)
endif()
if(TARGET hone_job)
  set_property(SOURCE src/job/api.c src/job/doctor.c APPEND PROPERTY COMPILE_DEFINITIONS HONE_VERSION="${PROJECT_VERSION}")

  # The library is the objects of all layers. Only what include/hone marks is visible from outside.
  foreach(layer ${layers})
    if(TARGET hone_${layer})
      list(APPEND product_objects $<TARGET_OBJECTS:hone_${layer}>)
    endif()
  endforeach()
  add_library(hone_shared SHARED ${product_objects})
  set_target_properties(hone_shared PROPERTIES OUTPUT_NAME hone VERSION ${PROJECT_VERSION} SOVERSION ${PROJECT_VERSION_MAJOR} LINKER_LANGUAGE C)
  target_link_libraries(hone_shared PRIVATE hone_job)

  # The program holds the library, so that it runs from anywhere. It sees include/ alone.
  file(GLOB cli_sources CONFIGURE_DEPENDS src/cli/*.c)
  add_executable(hone ${cli_sources})
  target_link_libraries(hone PRIVATE hone_job)
endif()
