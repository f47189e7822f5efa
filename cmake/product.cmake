# Links of the upper layers, the program, the library, and what `cmake --install` puts where.
if(TARGET hone_train)
  target_link_libraries(hone_train PUBLIC PkgConfig::FYAML)
endif()
