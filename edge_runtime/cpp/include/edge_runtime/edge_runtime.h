/* The C ABI of edge-runtime: a bundle, answered by the native engine with paged memory. Pure C99, for JNI, Swift and
 * whatever else can call C.
 *
 * Errors. A function that can fail returns an edge_status; where it is not EDGE_OK and `error` is not NULL, *error says
 * in one line which file, what is wrong and what to do. Nothing else was changed unless the function says so. No
 * exception leaves the library.
 *
 * Ownership. edge_runtime_open and edge_session_new hand out what edge_runtime_close and edge_session_free take back. A
 * session keeps what it needs of its runtime: they may be given back in any order. NULL may be given back.
 *
 * Threads. A runtime may be used from any number of threads at once. A session takes one call at a time, from any
 * thread, and edge_session_cancel at any time beside it, until edge_session_free begins. Handles must not be given back
 * while a call uses them. The library starts threads of its own: the engine's, which work inside calls only, and one
 * that reads the bank.
 *
 * Text is UTF-8 with a length in bytes and need not end in NUL; bytes that are not UTF-8 count as U+FFFD.
 *
 * Versions. Functions and members are only ever added. Structs that the caller fills begin with their size, so that a
 * program built against an older header goes on working: fill them with the edge_*_init functions. */
#ifndef EDGE_RUNTIME_EDGE_RUNTIME_H_
#define EDGE_RUNTIME_EDGE_RUNTIME_H_

/* NOLINTBEGIN: C, and names as C libraries have them */
#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#define EDGE_API __attribute__((visibility("default")))
#else
#define EDGE_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

#define EDGE_API_VERSION 1

typedef enum edge_status {
  EDGE_OK = 0,
  EDGE_INVALID_ARGUMENT = 1, /* an argument is out of range; nothing was done */
  EDGE_NOT_FOUND = 2,        /* a file, node or handle that does not exist */
  EDGE_IO = 3,               /* the operating system failed a call, or memory ran out */
  EDGE_TRUNCATED = 4,        /* a file ends before its header says it does */
  EDGE_BAD_FORMAT = 5,       /* not our format, or a value that the format forbids */
  EDGE_UNSUPPORTED = 6,      /* a version or kind that this build does not know */
  EDGE_CHECKSUM = 7,         /* bytes differ from their checksum */
  EDGE_NEVER_FITS = 8,       /* edge_error.required_bytes is the smallest budget that would do */
  EDGE_BUSY = 9,             /* other sessions' memory is in the way: free or refetch one and try again */
  EDGE_BLOCKED = 10,         /* the node is blocked or removed */
  EDGE_CANCELLED = 11,       /* edge_session_cancel ended the call */
  EDGE_STALE_HANDLE = 12     /* memory that is gone */
} edge_status;

typedef struct edge_error {
  int32_t status; /* an edge_status */
  uint64_t required_bytes;
  char message[512]; /* ends in NUL; longer messages are cut at a character */
} edge_error;

typedef struct edge_runtime edge_runtime; /* a bundle made ready; its sessions share it */
typedef struct edge_session edge_session; /* one conversation */

/* Node `index` of a level of the tree; level 0 has one, the generic memory. */
typedef struct edge_node {
  uint32_t level;
  uint64_t index;
} edge_node;

EDGE_API uint32_t edge_api_version(void); /* EDGE_API_VERSION of the library, which may be newer than the header's */
EDGE_API const char* edge_version(void);  /* of the library, such as "0.1.0"; static */
EDGE_API const char* edge_status_name(int32_t status); /* such as "never_fits"; static */

/* ---- runtime ---- */

typedef struct edge_runtime_options {
  size_t size;
  uint64_t budget;     /* bytes of the bank in memory, read and under way; 0 for two leases */
  uint32_t threads;    /* of the engine, 1 or more */
  const char* storage; /* how the bank is read: "auto", "direct", "mapped" or "uring"; NULL for auto */
  const char* router;  /* the name of one of the bundle's embedders; NULL for its default */
} edge_runtime_options;

typedef struct edge_runtime_info {
  size_t size;
  uint64_t revision;
  uint32_t vocab_size;     /* of the anchor: the number of logits */
  uint32_t context_length; /* tokens */
  uint32_t has_bank;       /* 0 or 1 */
  uint32_t has_router;     /* 0 or 1 */
  uint64_t bank_bytes;     /* of all level files */
  uint64_t budget_bytes;
  uint64_t weights_bytes; /* mapped */
  uint64_t kv_bytes;      /* of one session's cache, full */
} edge_runtime_info;

EDGE_API void edge_runtime_options_init(edge_runtime_options* options); /* the defaults */
/* options: NULL for the defaults. The bundle's files must not be changed in place while they are open. */
EDGE_API edge_status edge_runtime_open(const char* bundle, const edge_runtime_options* options, edge_runtime** runtime,
                                       edge_error* error);
EDGE_API void edge_runtime_close(edge_runtime* runtime);
/* Fills the info->size bytes that the caller says it has. */
EDGE_API edge_status edge_runtime_get_info(const edge_runtime* runtime, edge_runtime_info* info, edge_error* error);

/* Token ids of a text, without a BOS. Writes up to `capacity` of them; *count is how many there are. tokens may be NULL
 * where capacity is 0. */
EDGE_API edge_status edge_tokenize(const edge_runtime* runtime, const char* text, size_t length, uint32_t* tokens,
                                   size_t capacity, size_t* count, edge_error* error);
/* Text of token ids, special tokens left out, by the same rule; no NUL is written. */
EDGE_API edge_status edge_detokenize(const edge_runtime* runtime, const uint32_t* tokens, size_t count, char* text,
                                     size_t capacity, size_t* length, edge_error* error);
/* The nodes of a text's path, from level 1 down, by the same rule; `blocked` ones are avoided, each with its subtree.
 */
EDGE_API edge_status edge_route(const edge_runtime* runtime, const char* text, size_t length, const edge_node* blocked,
                                size_t blocked_count, edge_node* path, size_t capacity, size_t* count,
                                edge_error* error);

/* ---- session ---- */

typedef struct edge_sampling {
  size_t size;
  float temperature;        /* 0 or more; 0 takes the likeliest token; in edge_session_generate below 0 the bundle's */
  uint32_t top_k;           /* 0 for all */
  float top_p;              /* above 0, at most 1 */
  float min_p;              /* 0 to 1 */
  float repetition_penalty; /* above 0; 1 for none */
  uint64_t seed;            /* the same seed and prompt give the same text on every machine of one instruction set */
} edge_sampling;

/* Auto: fetched where there is a bank, else none. */
typedef enum edge_memory {
  EDGE_MEMORY_AUTO = -1,
  EDGE_MEMORY_FETCHED = 0,
  EDGE_MEMORY_GENERIC = 1,
  EDGE_MEMORY_NONE = 2
} edge_memory;

/* Takes text as its characters complete, not NUL-terminated and valid during the call only. Returns 0 to go on,
 * anything else to end the answer. It must not call this session's functions but edge_session_cancel. */
typedef int (*edge_text_callback)(void* user, const char* text, size_t length);

typedef struct edge_generate_options {
  size_t size;
  const edge_sampling* sampling; /* NULL: the bundle's temperature, and no other limits */
  uint32_t max_tokens;           /* 0 takes the bundle's */
  int32_t memory;                /* an edge_memory */
  const edge_node* blocked;
  size_t blocked_count;
  const char* const* stop; /* NUL-terminated texts that end the answer and are not given out; NULL takes the bundle's */
  size_t stop_count;
} edge_generate_options;

typedef struct edge_stats {
  size_t size;
  uint64_t prompt_tokens;
  uint64_t cached_tokens; /* of these, that the KV cache held already */
  uint64_t generated_tokens;
  double route_ms;
  double fetch_ms;            /* until the last byte was verified; below 0: it never was */
  double stall_ms;            /* what of it the engine waited for */
  double ttft_ms;             /* from the call to the first token */
  double decode_tokens_per_s; /* of the tokens after the first; 0 where there are none */
  uint64_t bytes_read;        /* from storage */
  uint64_t bank_resident_bytes;
  uint32_t path_length; /* of the route */
  uint32_t position;    /* tokens in the KV cache */
  uint64_t path[8];     /* the nodes of levels 1, 2, ... */
} edge_stats;

EDGE_API edge_status edge_session_new(const edge_runtime* runtime, edge_session** session, edge_error* error);
EDGE_API void edge_session_free(edge_session* session);
EDGE_API void edge_session_reset(edge_session* session); /* empties the KV cache; memory stays until another fetch */

/* Begins to read the blocks of these nodes, and returns; prefill and decode compute with them and wait for each layer
 * where they come to it. Nodes without a block are skipped; none at all: without memory. The memory of before is given
 * up. */
EDGE_API edge_status edge_session_fetch(edge_session* session, const edge_node* nodes, size_t count, edge_error* error);
/* Appends tokens to the KV cache. After an error those that edge_stats.position counts are there. */
EDGE_API edge_status edge_session_prefill(edge_session* session, const uint32_t* tokens, size_t count,
                                          edge_error* error);
EDGE_API edge_status edge_session_decode(edge_session* session, uint32_t token, edge_error* error); /* one token */
/* Of the last token; vocab_size floats, valid until the session's next call but edge_session_sample. NULL in an empty
 * KV cache. */
EDGE_API const float* edge_session_logits(const edge_session* session);
EDGE_API void edge_sampling_init(edge_sampling* sampling); /* the likeliest token */
/* For the samples that follow; begins the seed's draws anew. */
EDGE_API edge_status edge_session_set_sampling(edge_session* session, const edge_sampling* sampling, edge_error* error);
EDGE_API edge_status edge_session_sample(edge_session* session, uint32_t* token, edge_error* error);

EDGE_API void edge_generate_options_init(edge_generate_options* options); /* the bundle's defaults */
/* Routes the prompt, fetches, and answers. The KV cache is emptied before, but for a beginning that the prompt shares
 * with it under the same memory. options: NULL for the defaults. */
EDGE_API edge_status edge_session_generate(edge_session* session, const char* prompt, size_t length,
                                           const edge_generate_options* options, edge_text_callback on_text, void* user,
                                           edge_error* error);

/* Ends the call that another thread has under way, with EDGE_CANCELLED, within a chunk of a prefill or one token, and
 * gives up the session's memory. Without effect where no call is under way. */
EDGE_API void edge_session_cancel(edge_session* session);
/* Of the last generate, or of the calls since the last reset. Fills the stats->size bytes that the caller says it has.
 */
EDGE_API edge_status edge_session_get_stats(const edge_session* session, edge_stats* stats, edge_error* error);

#ifdef __cplusplus
}
#endif
/* NOLINTEND */

#endif /* EDGE_RUNTIME_EDGE_RUNTIME_H_ */
