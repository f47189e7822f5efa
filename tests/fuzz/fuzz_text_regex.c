/* An arbitrary pattern on arbitrary text, divided by a line of "---": it compiles or is refused, matches
 * follow one another inside of the text, between characters, and the steps of all of them are bounded. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "text/regex.h"

static void require(bool ok) {
    if (!ok) abort();
}

static bool at_character(const char *text, size_t size, size_t at) {
    return at == size || ((unsigned char)text[at] & 0xC0) != 0x80;
}

static void match_all(const struct regex *regex, const char *text, size_t size) {
    struct regex_scratch *scratch = NULL;
    struct error err = {0};
    bool found = true;
    require(regex_scratch_open(&scratch, &err));
    regex_scratch_begin(scratch, size);
    for (size_t at = 0, first, end; found && at <= size; at = end) {
        if (!regex_find(regex, scratch, text, size, at, &first, &end, &found, &err)) {
            require(err.code == ERROR_INPUT && err.what[0]);
            break;
        }
        if (!found) break;
        require(first >= at && end >= first && end <= size);
        require(at_character(text, size, first) && at_character(text, size, end));
        if (end == first) end++;
        while (!at_character(text, size, end < size ? end : size)) end++;
    }
    regex_scratch_close(&scratch);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char mark[] = "\n---\n";
    const char *pattern = (const char *)data, *split = memmem(pattern, size, mark, sizeof mark - 1);
    const char *text = split ? split + sizeof mark - 1 : pattern + size;
    size_t pattern_size = split ? (size_t)(split - pattern) : size,
           text_size = (size_t)(pattern + size - text);
    for (int literal = 0; literal < 2; literal++) {
        struct regex *regex = NULL;
        struct error err = {0};
        if (regex_open(&regex, pattern, pattern_size, literal, &err)) {
            if (utf8_valid(text, text_size, NULL)) match_all(regex, text, text_size);
        } else {
            require(err.code == ERROR_INPUT && err.what[0] && !regex);
        }
        regex_close(&regex);
    }
    return 0;
}
