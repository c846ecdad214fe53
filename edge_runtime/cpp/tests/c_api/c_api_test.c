/* The C ABI from C99, against the shared library: c_api_test BUNDLE. The first check that fails ends the program. */
#define _POSIX_C_SOURCE 200809L
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "edge_runtime/edge_runtime.h"

#define CHECK(condition)                                              \
  do {                                                                \
    if (!(condition)) {                                               \
      fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition); \
      exit(1);                                                        \
    }                                                                 \
  } while (0)

#define CHECK_OK(call)                                                              \
  do {                                                                              \
    if ((call) != EDGE_OK) {                                                        \
      fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__, #call, error.message); \
      exit(1);                                                                      \
    }                                                                               \
  } while (0)

static const char kPrompt[] = "one of the thousand";
static edge_error error;

struct text {
  char bytes[4096];
  size_t length;
  size_t pieces_left; /* the answer is ended after so many */
  edge_session* cancels;
};

static int append(void* user, const char* text, size_t length) {
  struct text* const to = user;
  CHECK(to->length + length < sizeof to->bytes);
  memcpy(to->bytes + to->length, text, length);
  to->length += length;
  if (to->cancels != NULL) edge_session_cancel(to->cancels);
  return --to->pieces_left == 0;
}

static struct text empty(void) {
  struct text text;
  memset(&text, 0, sizeof text);
  text.pieces_left = SIZE_MAX;
  return text;
}

static edge_runtime* open_bundle(const char* bundle) {
  edge_runtime* runtime = NULL;
  CHECK_OK(edge_runtime_open(bundle, NULL, &runtime, &error));
  CHECK(runtime != NULL);
  return runtime;
}

static edge_session* new_session(edge_runtime* runtime) {
  edge_session* session = NULL;
  CHECK_OK(edge_session_new(runtime, &session, &error));
  return session;
}

static void refuses_what_is_wrong(const char* bundle) {
  edge_runtime_options options;
  edge_runtime* runtime = NULL;
  CHECK(edge_runtime_open("/nonexistent", NULL, &runtime, &error) == EDGE_NOT_FOUND);
  CHECK(strstr(error.message, "/nonexistent") != NULL && error.status == EDGE_NOT_FOUND);
  CHECK(edge_runtime_open("/nonexistent", NULL, &runtime, NULL) == EDGE_NOT_FOUND);
  CHECK(edge_runtime_open(NULL, NULL, &runtime, &error) == EDGE_INVALID_ARGUMENT);
  edge_runtime_options_init(&options);
  options.threads = 0;
  CHECK(edge_runtime_open(bundle, &options, &runtime, &error) == EDGE_INVALID_ARGUMENT);
  edge_runtime_options_init(&options);
  options.storage = "tape";
  CHECK(edge_runtime_open(bundle, &options, &runtime, &error) == EDGE_INVALID_ARGUMENT);
  edge_runtime_options_init(&options);
  options.router = "none";
  CHECK(edge_runtime_open(bundle, &options, &runtime, &error) == EDGE_NOT_FOUND);
  memset(&options, 0, sizeof options);
  CHECK(edge_runtime_open(bundle, &options, &runtime, &error) == EDGE_INVALID_ARGUMENT);
  CHECK(strstr(error.message, "size") != NULL);
  CHECK(runtime == NULL);
  CHECK(strcmp(edge_status_name(EDGE_NEVER_FITS), "never_fits") == 0);
  CHECK(strcmp(edge_status_name(99), "unknown") == 0);
  CHECK(edge_api_version() >= EDGE_API_VERSION && strlen(edge_version()) > 0);
  edge_runtime_close(NULL);
  edge_session_free(NULL);
  edge_session_cancel(NULL);
}

static void a_small_budget_is_named(const char* bundle) {
  edge_runtime_options options;
  edge_runtime* runtime = NULL;
  edge_session* session;
  struct text text = empty();
  edge_status status;
  edge_runtime_options_init(&options);
  options.budget = 4096;
  CHECK_OK(edge_runtime_open(bundle, &options, &runtime, &error));
  session = new_session(runtime);
  status = edge_session_generate(session, kPrompt, strlen(kPrompt), NULL, append, &text, &error);
  CHECK(status == EDGE_NEVER_FITS && error.required_bytes > options.budget);
  edge_session_free(session);
  edge_runtime_close(runtime);
}

static void tells_what_it_is(edge_runtime* runtime) {
  edge_runtime_info info;
  struct {
    size_t size;
    uint64_t revision;
  } older;
  info.size = sizeof info;
  CHECK_OK(edge_runtime_get_info(runtime, &info, &error));
  CHECK(info.size == sizeof info && info.revision == 1 && info.vocab_size == 260 && info.context_length == 200);
  CHECK(info.has_bank == 1 && info.has_router == 1 && info.bank_bytes > 0 && info.budget_bytes > 0);
  /* A program of an older header gets what it knows, and not a byte more. */
  older.size = sizeof older;
  older.revision = 0;
  CHECK_OK(edge_runtime_get_info(runtime, (edge_runtime_info*)(void*)&older, &error));
  CHECK(older.size == sizeof older && older.revision == 1);
}

static size_t tokenize(edge_runtime* runtime, uint32_t* tokens, size_t capacity) {
  size_t count = 0;
  CHECK_OK(edge_tokenize(runtime, kPrompt, strlen(kPrompt), tokens, capacity, &count, &error));
  return count;
}

static void tokenizes_and_routes(edge_runtime* runtime) {
  uint32_t tokens[64];
  char text[64];
  size_t length = 0;
  size_t depth = 0;
  edge_node path[8];
  edge_node other[8];
  edge_node beyond;
  const size_t count = tokenize(runtime, tokens, 64);
  CHECK(count > 0 && count < strlen(kPrompt));
  CHECK(tokenize(runtime, NULL, 0) == count);
  CHECK_OK(edge_detokenize(runtime, tokens, count, text, sizeof text, &length, &error));
  CHECK(length == strlen(kPrompt) && memcmp(text, kPrompt, length) == 0);
  CHECK_OK(edge_route(runtime, kPrompt, strlen(kPrompt), NULL, 0, path, 8, &depth, &error));
  CHECK(depth == 1 && path[0].level == 1 && path[0].index < 4);
  CHECK_OK(edge_route(runtime, kPrompt, strlen(kPrompt), path, 1, other, 8, &depth, &error));
  CHECK(depth == 1 && other[0].index != path[0].index);
  beyond.level = 9;
  beyond.index = 0;
  CHECK(edge_route(runtime, kPrompt, 3, &beyond, 1, other, 8, &depth, &error) == EDGE_INVALID_ARGUMENT);
}

/* What generate does, step by step: the same text. */
static void steps_give_what_generate_gives(edge_runtime* runtime) {
  edge_session* const session = new_session(runtime);
  edge_session* const stepped = new_session(runtime);
  struct text text = empty();
  edge_sampling sampling;
  edge_generate_options options;
  edge_stats stats;
  edge_node path[8];
  uint32_t tokens[64];
  uint32_t answer[8];
  char shown[256];
  size_t depth = 0;
  size_t length = 0;
  size_t i;
  const size_t count = tokenize(runtime, tokens, 64);
  CHECK(edge_session_logits(stepped) == NULL);
  CHECK(edge_session_sample(stepped, answer, &error) == EDGE_INVALID_ARGUMENT);

  edge_sampling_init(&sampling);
  sampling.temperature = 0.8F;
  sampling.top_k = 20;
  sampling.repetition_penalty = 1.2F;
  sampling.seed = 7;
  edge_generate_options_init(&options);
  options.sampling = &sampling;
  options.max_tokens = 8;
  CHECK_OK(edge_session_generate(session, kPrompt, strlen(kPrompt), &options, append, &text, &error));
  stats.size = sizeof stats;
  CHECK_OK(edge_session_get_stats(session, &stats, &error));
  CHECK(stats.generated_tokens == 8 && stats.prompt_tokens == count && stats.path_length == 1);
  CHECK(stats.bytes_read > 0 && stats.ttft_ms > 0 && stats.decode_tokens_per_s > 0);

  CHECK_OK(edge_route(runtime, kPrompt, strlen(kPrompt), NULL, 0, path, 8, &depth, &error));
  CHECK_OK(edge_session_fetch(stepped, path, depth, &error));
  CHECK_OK(edge_session_set_sampling(stepped, &sampling, &error));
  CHECK_OK(edge_session_prefill(stepped, tokens, count, &error));
  for (i = 0; i < 8; ++i) {
    CHECK(edge_session_logits(stepped) != NULL);
    CHECK_OK(edge_session_sample(stepped, answer + i, &error));
    CHECK_OK(edge_session_decode(stepped, answer[i], &error));
  }
  CHECK_OK(edge_detokenize(runtime, answer, 8, shown, sizeof shown, &length, &error));
  CHECK(length == text.length && memcmp(shown, text.bytes, length) == 0);

  /* Another answer to the same prompt computes its last token only, and is the same. */
  length = text.length;
  text.length = 0;
  CHECK_OK(edge_session_generate(session, kPrompt, strlen(kPrompt), &options, append, &text, &error));
  CHECK_OK(edge_session_get_stats(session, &stats, &error));
  CHECK(stats.cached_tokens == count - 1);
  CHECK(text.length == length && memcmp(shown, text.bytes, length) == 0);
  edge_session_free(session);
  edge_session_free(stepped);
}

static void memory_changes_the_answer_and_is_refetched(edge_runtime* runtime) {
  edge_session* const session = new_session(runtime);
  edge_generate_options options;
  struct text texts[3];
  edge_stats stats;
  int i;
  edge_generate_options_init(&options);
  stats.size = sizeof stats;
  for (i = 0; i < 3; ++i) {
    texts[i] = empty();
    options.memory = i == 1 ? EDGE_MEMORY_NONE : EDGE_MEMORY_GENERIC;
    CHECK_OK(edge_session_generate(session, kPrompt, strlen(kPrompt), &options, append, &texts[i], &error));
    CHECK_OK(edge_session_get_stats(session, &stats, &error));
    CHECK(stats.cached_tokens == 0); /* the cache of one memory is none of another's */
  }
  CHECK(texts[0].length != texts[1].length || memcmp(texts[0].bytes, texts[1].bytes, texts[0].length) != 0);
  CHECK(texts[0].length == texts[2].length && memcmp(texts[0].bytes, texts[2].bytes, texts[0].length) == 0);
  options.memory = 7;
  CHECK(edge_session_generate(session, kPrompt, 3, &options, append, &texts[0], &error) == EDGE_INVALID_ARGUMENT);
  edge_session_free(session);
}

static void the_caller_ends_an_answer(edge_runtime* runtime) {
  edge_session* const session = new_session(runtime);
  struct text text = empty();
  const char* stop[1];
  edge_generate_options options;
  size_t whole;
  edge_generate_options_init(&options);
  options.max_tokens = 40;
  CHECK_OK(edge_session_generate(session, kPrompt, strlen(kPrompt), &options, append, &text, &error));
  whole = text.length;
  CHECK(whole > 1);
  text.bytes[whole] = '\0';
  {
    char end[8] = {0};
    struct text stopped = empty();
    memcpy(end, text.bytes + whole - 1, 1);
    stop[0] = end;
    options.stop = stop;
    options.stop_count = 1;
    CHECK_OK(edge_session_generate(session, kPrompt, strlen(kPrompt), &options, append, &stopped, &error));
    CHECK(stopped.length < whole && memchr(stopped.bytes, end[0], stopped.length) == NULL);
  }
  options.stop = NULL;
  text = empty();
  text.pieces_left = 1;
  CHECK_OK(edge_session_generate(session, kPrompt, strlen(kPrompt), &options, append, &text, &error));
  CHECK(text.length > 0 && text.length < whole);
  text = empty();
  text.cancels = session;
  CHECK(edge_session_generate(session, kPrompt, strlen(kPrompt), &options, append, &text, &error) == EDGE_CANCELLED);
  CHECK(text.length < whole);
  /* And the session goes on. */
  text = empty();
  CHECK_OK(edge_session_generate(session, kPrompt, strlen(kPrompt), &options, append, &text, &error));
  CHECK(text.length == whole);
  edge_session_free(session);
}

static void a_context_ends(edge_runtime* runtime) {
  edge_session* const session = new_session(runtime);
  uint32_t tokens[201];
  const uint32_t beyond = 260;
  edge_stats stats;
  memset(tokens, 0, sizeof tokens);
  stats.size = sizeof stats;
  CHECK(edge_session_prefill(session, tokens, 201, &error) == EDGE_INVALID_ARGUMENT);
  CHECK(edge_session_prefill(session, tokens, 0, &error) == EDGE_INVALID_ARGUMENT);
  CHECK(edge_session_prefill(session, &beyond, 1, &error) == EDGE_INVALID_ARGUMENT);
  CHECK_OK(edge_session_prefill(session, tokens, 200, &error));
  CHECK(edge_session_decode(session, 0, &error) == EDGE_INVALID_ARGUMENT);
  CHECK_OK(edge_session_get_stats(session, &stats, &error));
  CHECK(stats.position == 200);
  edge_session_reset(session);
  CHECK_OK(edge_session_decode(session, 0, &error));
  edge_session_free(session);
}

static void* answer_on_thread(void* argument) {
  edge_session* const session = argument;
  struct text* const text = malloc(sizeof *text);
  CHECK(text != NULL);
  *text = empty();
  CHECK(edge_session_generate(session, kPrompt, strlen(kPrompt), NULL, append, text, NULL) == EDGE_OK);
  return text;
}

static void sessions_of_threads_agree(edge_runtime* runtime) {
  edge_session* const sessions[2] = {new_session(runtime), new_session(runtime)};
  pthread_t threads[2];
  struct text* texts[2];
  int i;
  edge_runtime_close(runtime); /* sessions keep what they need */
  for (i = 0; i < 2; ++i) CHECK(pthread_create(&threads[i], NULL, answer_on_thread, sessions[i]) == 0);
  for (i = 0; i < 2; ++i) {
    void* result = NULL;
    CHECK(pthread_join(threads[i], &result) == 0);
    texts[i] = result;
    edge_session_free(sessions[i]);
  }
  CHECK(texts[0]->length == texts[1]->length && memcmp(texts[0]->bytes, texts[1]->bytes, texts[0]->length) == 0);
  free(texts[0]);
  free(texts[1]);
}

int main(int argc, char** argv) {
  edge_runtime* runtime;
  if (argc != 2) return 2;
  refuses_what_is_wrong(argv[1]);
  a_small_budget_is_named(argv[1]);
  runtime = open_bundle(argv[1]);
  tells_what_it_is(runtime);
  tokenizes_and_routes(runtime);
  steps_give_what_generate_gives(runtime);
  memory_changes_the_answer_and_is_refetched(runtime);
  the_caller_ends_an_answer(runtime);
  a_context_ends(runtime);
  sessions_of_threads_agree(runtime);
  return 0;
}
