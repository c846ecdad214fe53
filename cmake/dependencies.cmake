# The distribution's packages where they are installed (scripts/setup.sh installs them), else a pinned download.
include(FetchContent)
find_package(Threads REQUIRED)

# JSON headers: level files, the tree, the manifest.
find_package(nlohmann_json 3.11 QUIET)
if(NOT nlohmann_json_FOUND)
  FetchContent_Declare(nlohmann_json GIT_REPOSITORY https://github.com/nlohmann/json.git GIT_TAG v3.11.3)
  FetchContent_MakeAvailable(nlohmann_json)
endif()

# Result<T>: the standard's std::expected arrives with C++23.
find_path(TL_EXPECTED_INCLUDE_DIR tl/expected.hpp)
if(NOT TL_EXPECTED_INCLUDE_DIR)
  FetchContent_Declare(tl_expected GIT_REPOSITORY https://github.com/TartanLlama/expected.git GIT_TAG v1.1.0)
  FetchContent_GetProperties(tl_expected)
  if(NOT tl_expected_POPULATED)
    FetchContent_Populate(tl_expected)
  endif()
  set(TL_EXPECTED_INCLUDE_DIR ${tl_expected_SOURCE_DIR}/include)
endif()

# XXH3 block checksums. Header-only use: XXH_INLINE_ALL lets the compiler see the lengths.
find_path(XXHASH_INCLUDE_DIR xxhash.h)
if(NOT XXHASH_INCLUDE_DIR)
  FetchContent_Declare(xxhash GIT_REPOSITORY https://github.com/Cyan4973/xxHash.git GIT_TAG v0.8.2)
  FetchContent_GetProperties(xxhash)
  if(NOT xxhash_POPULATED)
    FetchContent_Populate(xxhash)
  endif()
  set(XXHASH_INCLUDE_DIR ${xxhash_SOURCE_DIR})
endif()

if(EDGE_BUILD_TESTS)
  find_package(GTest 1.12 QUIET)
  if(NOT GTest_FOUND)
    FetchContent_Declare(googletest GIT_REPOSITORY https://github.com/google/googletest.git GIT_TAG v1.14.0)
    FetchContent_MakeAvailable(googletest)
  endif()
endif()

# io_uring. Optional: without it reads run on threads. The archive where there is one, so that a wheel needs no liburing
# on its user's machine. No download: it has no CMake build, and its absence costs speed only.
if(CMAKE_SYSTEM_NAME STREQUAL "Linux")
  find_path(LIBURING_INCLUDE_DIR liburing.h)
  find_library(LIBURING_LIBRARY NAMES liburing.a uring)
  if(LIBURING_INCLUDE_DIR AND LIBURING_LIBRARY)
    set(EDGE_HAS_LIBURING ON)
  else()
    message(STATUS "liburing not found: direct reads run on threads (Debian: liburing-dev)")
  endif()
endif()
