#include "job/remedy.h"

#include <string.h>

/* The first row that fits; a NULL part fits every one. */
static const struct {
    enum error_code code;
    const char *where, *fix;
} remedies[] = {
    {ERROR_INPUT, "gguf",
     "The file is incomplete, damaged or of a kind that hone does not read; fetch it again."},
    {ERROR_INPUT, "safetensors",
     "The file is incomplete or damaged; fetch it again, or have it written anew."},
    {ERROR_INPUT, "hub", "The directory is incomplete or damaged; fetch the model again."},
    {ERROR_INPUT, "model",
     "The model is damaged or of a kind that hone does not read; fetch it again, or name another."},
    {ERROR_INPUT, "tokenizer",
     "The tokenizer is damaged or of a kind that hone does not read; fetch the model again, or name "
     "another."},
    {ERROR_INPUT, "adapter", "Name an adapter that was trained on this model."},
    {ERROR_INPUT, "peft", "Name an adapter of LoRA or DoRA as hone or PEFT writes it."},
    {ERROR_INPUT, "template",
     "Correct the template, or give another one: --chat-template chatml, or --chat-template FILE."},
    {ERROR_INPUT, "data", "Correct the file; `hone data check` names every bad row."},
    {ERROR_INPUT, "generate", "Correct the request."},
    {ERROR_INPUT, "checkpoint", "Start the run anew with another --output."},
    {ERROR_INPUT, "file", "Check the path, and that it may be read."},
    {ERROR_INPUT, NULL, "Correct the file, or name another."},
    {ERROR_MEMORY, NULL, "Free memory, or lower --memory or --max-length."},
    {ERROR_DISK, NULL, "Free space there and check that it may be written, or choose another place."},
    {ERROR_USAGE, "recipe", "Correct the file; `hone settings train` lists what it may hold."},
    {ERROR_USAGE, NULL, "`hone COMMAND --help` tells what it takes."},
    {ERROR_INTERNAL, NULL, "This is a mistake of hone: please report it with the command."},
};

const char *remedy_for(const struct error *err) {
    for (size_t i = 0; i < sizeof remedies / sizeof *remedies; i++)
        if (remedies[i].code == err->code && (!remedies[i].where || !strcmp(remedies[i].where, err->where)))
            return remedies[i].fix;
    return "";
}
