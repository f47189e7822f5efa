/* `hone chat`: a conversation, line by line, over a session. */
#include "cli/cli.h"

#include <stdlib.h>
#include <string.h>

struct chat {
    struct cli *cli;
    struct hone_session *session;
    json_t *options;  /* name → value, as given */
    json_t *messages; /* the conversation so far */
};

static const char words[] = "Type a message; /new starts over, /exit or Ctrl-D leaves.\n";

static bool take(void *user, const char *name, const char *value, struct hone_error *err) {
    struct chat *chat = user;
    json_t *list = json_object_get(chat->options, name);
    bool ok = !list || json_is_array(list);
    if (!list) ok = json_object_set_new(chat->options, name, list = json_array()) == 0;
    ok = ok && json_array_append_new(list, value ? json_string(value) : json_true()) == 0;
    return ok || cli_refuse(err, "chat", "a flag is not valid UTF-8", "");
}

static void cancel(void *session) { hone_session_cancel(session); }

static bool on_text(void *user, const char *text, size_t size) {
    struct chat *chat = user;
    char *escaped = chat->cli->terminal ? hone_escape(text, size, true) : NULL;
    if (escaped)
        fputs(escaped, stdout);
    else
        fwrite(text, 1, size, stdout);
    hone_free(escaped);
    fflush(stdout);
    chat->cli->streamed = true;
    return true;
}

/* Answers the last message; it is taken back where that fails. */
static bool answer(struct chat *chat, struct hone_error *err) {
    char *request = json_dumps(chat->messages, JSON_COMPACT), *result = NULL;
    if (!request) return cli_refuse(err, "chat", "out of memory", "");
    cli_on_interrupt(cancel, chat->session);
    bool ok = hone_session_generate(chat->session, request, NULL, chat->cli->json ? NULL : on_text, chat,
                                    &result, err);
    cli_on_interrupt(NULL, NULL);
    free(request);
    json_t *object = ok ? cli_json(result) : NULL;
    if (ok) {
        json_array_append_new(chat->messages, json_pack("{s:s, s:s}", "role", "assistant", "content",
                                                        json_get_text(object, "text")));
        puts(chat->cli->json ? result : "");
        fflush(stdout);
    } else {
        json_array_remove(chat->messages, json_array_size(chat->messages) - 1);
    }
    json_decref(object);
    hone_free(result);
    return ok;
}

/* After a turn that failed and was left out, whether the conversation goes on: at a terminal, where a person
 * can say something else. Whoever writes into a pipe would take the next answer for this one. */
static bool goes_on(struct chat *chat, struct hone_error *err) {
    bool at_terminal = chat->cli->terminal && !chat->cli->json;
    cli_end_line(chat->cli);
    if (!at_terminal || err->code != HONE_INTERRUPTED) cli_fail(chat->cli, err);
    if (!at_terminal || (err->code != HONE_INTERRUPTED && err->code != HONE_INPUT)) return false;
    fputs(err->code == HONE_INTERRUPTED ? "Stopped; that turn is left out.\n"
                                        : "That turn is left out; /new starts over.\n",
          stderr);
    err->code = HONE_OK;
    return true;
}

static bool refuse_line(struct chat *chat, const char *what, struct hone_error *err) {
    cli_refuse(err, "chat", what, "");
    err->code = HONE_INPUT;
    return goes_on(chat, err);
}

/* One line of the user: a turn, or a word that begins with a slash. False ends the conversation. */
static bool turn(struct chat *chat, char *line, size_t size, struct hone_error *err) {
    chat->cli->streamed = false;
    if (memchr(line, '\0', size)) return refuse_line(chat, "that line holds a NUL character", err);
    line[strcspn(line, "\r\n")] = '\0';
    if (strcmp(line, "/exit") == 0 || strcmp(line, "/quit") == 0) return false;
    if (strcmp(line, "/new") == 0) json_array_clear(chat->messages);
    if (strcmp(line, "/help") == 0) fputs(words, stderr);
    if (!line[strspn(line, " \t")] || strcmp(line, "/new") == 0 || strcmp(line, "/help") == 0) return true;
    json_t *message = json_pack("{s:s, s:s}", "role", "user", "content", line);
    if (json_array_append_new(chat->messages, message) == 0) return answer(chat, err) || goes_on(chat, err);
    return refuse_line(chat, "that line is not valid UTF-8", err);
}

static void warn(const struct hone_session *session) {
    const char *warning = hone_session_warning(session);
    if (warning) cli_warn(warning);
}

static int converse(struct chat *chat) {
    struct hone_error err = {.code = HONE_OK};
    char *line = NULL;
    size_t capacity = 0;
    if (chat->cli->terminal && !chat->cli->json) fputs(words, stderr);
    for (;;) {
        if (chat->cli->terminal && !chat->cli->json) fputs("> ", stderr);
        ssize_t size = getline(&line, &capacity, stdin);
        if (size < 0 || !turn(chat, line, (size_t)size, &err)) break;
    }
    free(line);
    return hone_exit_status(err.code);
}

static int run(struct cli *cli, const struct command *command, int argc, char **argv) {
    struct chat chat = {.cli = cli, .options = json_object(), .messages = json_array()};
    struct flags *flags = NULL;
    struct hone_error err;
    char *options = NULL;
    bool ok =
        flags_open(&flags, command->name, &err) && flags_parse(flags, command, argc, argv, take, &chat, &err);
    if (ok) options = json_dumps(chat.options, JSON_COMPACT);
    ok = ok && hone_session_open(&chat.session, NULL, NULL, options, &err);
    if (ok) warn(chat.session);
    int status = ok ? converse(&chat) : cli_fail(cli, &err);
    free(options);
    hone_session_close(&chat.session);
    flags_close(&flags);
    json_decref(chat.options);
    json_decref(chat.messages);
    return status;
}

const struct command command_chat = {
    .name = "chat",
    .group = "Use",
    .summary = "talk with a model in the terminal",
    .usage = "hone chat --model NAME [--adapter DIR]",
    .examples = "  hone chat --model smollm2-135m-instruct\n"
                "  hone chat --model smollm2-135m-instruct --adapter runs/first/adapter --temperature 0.7 "
                "--top-p 0.9\n"
                "  hone chat --model smollm2-135m-instruct --system \"Answer in one sentence.\"\n",
    .run = run,
};
