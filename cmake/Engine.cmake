# Finds the engine: ggml, libllama and the chat template interpreter that scripts/setup built or found.
execute_process(COMMAND ${CMAKE_SOURCE_DIR}/scripts/engine/prefix OUTPUT_VARIABLE engine_prefix
                OUTPUT_STRIP_TRAILING_WHITESPACE COMMAND_ERROR_IS_FATAL ANY)
if(NOT EXISTS ${engine_prefix}/complete)
  message(FATAL_ERROR "The engine is not built yet (${engine_prefix}). Run scripts/setup first.")
endif()
if(EXISTS ${engine_prefix}/llama_dir)  # an installed llama.cpp
  file(STRINGS ${engine_prefix}/llama_dir llama_DIR LIMIT_COUNT 1)
  set(ggml_DIR ${llama_DIR}/../ggml)
else()
  list(PREPEND CMAKE_PREFIX_PATH ${engine_prefix})
endif()
find_package(llama REQUIRED)
find_package(ggml REQUIRED)

# ggml::all alone lacks the backend registry, hence ggml::ggml beside it.
add_library(engine INTERFACE)
target_link_libraries(engine INTERFACE llama ggml::ggml ggml::all)
# libggml.so needs libggml-cpu.so and says not where it is: our RPATH must hold for what our libraries need, too.
target_link_options(engine INTERFACE LINKER:--disable-new-dtags)

add_library(llama-jinja STATIC IMPORTED)
set_target_properties(llama-jinja PROPERTIES
    IMPORTED_LOCATION ${engine_prefix}/lib/libllama-jinja.a
    INTERFACE_INCLUDE_DIRECTORIES ${engine_prefix}/include/llama-jinja)
target_link_libraries(llama-jinja INTERFACE engine)
