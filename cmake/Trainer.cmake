# Finds libtorch for the trainer: Debian's libtorch-dev, or any other by CMAKE_PREFIX_PATH.
set(LLAVA_MINI_HAS_TRAINER OFF)
if(LLAVA_MINI_SANITIZE OR LLAVA_MINI_FUZZ)
  # Debian's libtorch and what it loads are not built for it.
  set(LLAVA_MINI_HAS_TRAINER OFF)
elseif(LLAVA_MINI_TRAINER)  # AUTO counts as true
  find_package(Torch QUIET)
  if(Torch_FOUND)
    set(LLAVA_MINI_HAS_TRAINER ON)
    # By name, not through the packages' targets: these drag in options that change how the rest is built.
    set(LLAVA_MINI_TORCH_LIBRARIES ${TORCH_LIBRARIES})
  elseif(NOT LLAVA_MINI_TRAINER STREQUAL AUTO)
    message(FATAL_ERROR "LLAVA_MINI_TRAINER is ON, but libtorch is not found: install Debian's libtorch-dev, "
                        "or name another libtorch by CMAKE_PREFIX_PATH")
  endif()
endif()
message(STATUS "trainer (libtorch): ${LLAVA_MINI_HAS_TRAINER}")
