# Links of the upper layers, the library, the program, and what `cmake --install` puts where.
include(GNUInstallDirs)

if(TARGET hone_train)
  target_link_libraries(hone_train PUBLIC PkgConfig::FYAML)
endif()

if(TARGET hone_job)
  # The library is the objects of all layers; hone_job stands for the libraries that they need.
  foreach(layer ${layers})
    if(TARGET hone_${layer})
      list(APPEND product_objects $<TARGET_OBJECTS:hone_${layer}>)
    endif()
  endforeach()
  add_library(hone_shared SHARED ${product_objects})
  set_target_properties(hone_shared PROPERTIES OUTPUT_NAME hone VERSION ${PROJECT_VERSION}
    SOVERSION ${PROJECT_VERSION_MAJOR} LINKER_LANGUAGE C)
  target_link_libraries(hone_shared PRIVATE hone_job)
  if(NOT APPLE AND NOT HONE_SANITIZE)
    target_link_options(hone_shared PRIVATE -Wl,-z,defs)
  endif()

  # In the static library, too, only what include/hone marks can be reached: the objects become one, and its
  # hidden names local, so that an embedding program may have a buf_init of its own.
  set(static_library ${CMAKE_BINARY_DIR}/libhone.a)
  if(APPLE)
    add_library(hone_static STATIC ${product_objects})
    set_target_properties(hone_static PROPERTIES OUTPUT_NAME hone LINKER_LANGUAGE C)
  else()
    add_custom_command(OUTPUT ${static_library}
      COMMAND ${CMAKE_LINKER} -r -o hone_whole.o ${product_objects}
      COMMAND ${CMAKE_OBJCOPY} --localize-hidden hone_whole.o
      COMMAND ${CMAKE_COMMAND} -E rm -f ${static_library}
      COMMAND ${CMAKE_AR} qcs ${static_library} hone_whole.o
      DEPENDS ${product_objects} COMMAND_EXPAND_LISTS VERBATIM COMMENT "One static library with public names alone")
    add_custom_target(hone_static ALL DEPENDS ${static_library})
  endif()

  # The program holds the library, so that it runs from anywhere; it sees the public names alone.
  file(GLOB cli_sources CONFIGURE_DEPENDS src/cli/*.c)
  add_executable(hone ${cli_sources})
  add_dependencies(hone hone_static)
  target_link_libraries(hone PRIVATE ${static_library} hone_job)

  install(TARGETS hone hone_shared RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR} LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
  install(FILES ${static_library} DESTINATION ${CMAKE_INSTALL_LIBDIR})
  install(DIRECTORY include/hone DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} FILES_MATCHING PATTERN "*.h")
  install(FILES docs/hone.1 DESTINATION ${CMAKE_INSTALL_MANDIR}/man1)
  if(LAPACKE_FOUND)
    set(lapacke_requirement " lapacke")
  endif()
  # Filled at install, so that --prefix holds.
  install(CODE "
    set(CMAKE_INSTALL_LIBDIR ${CMAKE_INSTALL_LIBDIR})
    set(CMAKE_INSTALL_INCLUDEDIR ${CMAKE_INSTALL_INCLUDEDIR})
    set(PROJECT_VERSION ${PROJECT_VERSION})
    set(HONE_PC_LAPACKE \"${lapacke_requirement}\")
    configure_file(${CMAKE_CURRENT_SOURCE_DIR}/cmake/hone.pc.in ${CMAKE_BINARY_DIR}/hone.pc @ONLY)")
  install(FILES ${CMAKE_BINARY_DIR}/hone.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
endif()
