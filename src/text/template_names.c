#include "text/template_names.h"

#include <string.h>

/* Markers that a model does not know as special tokens are plain text to it, and are learnt. Where the
 * format has no end marker of its own, the answer ends with the tokenizer's end-of-text. */
static const struct {
    const char *name, *source;
} templates[] = {
    {"chatml", "{%- for m in messages -%}"
               "{{ '<|im_start|>' ~ m.role ~ '\\n' ~ (m.content or '') ~ '<|im_end|>\\n' }}"
               "{%- endfor -%}"
               "{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}"},
    {"llama3", "{{- bos_token -}}"
               "{%- for m in messages -%}"
               "{{ '<|start_header_id|>' ~ m.role ~ '<|end_header_id|>\\n\\n' ~ (m.content or '') | trim ~ "
               "'<|eot_id|>' }}"
               "{%- endfor -%}"
               "{%- if add_generation_prompt -%}"
               "{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}"
               "{%- endif -%}"},
    {"alpaca", "{%- for m in messages -%}"
               "{%- if m.role == 'user' -%}{{ '### Instruction:\\n' ~ m.content ~ '\\n\\n' }}"
               "{%- elif m.role == 'assistant' -%}"
               "{{ '### Response:\\n' ~ (m.content or '') ~ eos_token ~ '\\n\\n' }}"
               "{%- else -%}{{ m.content ~ '\\n\\n' }}{%- endif -%}"
               "{%- endfor -%}"
               "{%- if add_generation_prompt -%}{{ '### Response:\\n' }}{%- endif -%}"},
    {"zephyr", "{%- for m in messages -%}"
               "{{ '<|' ~ m.role ~ '|>\\n' ~ (m.content or '') ~ eos_token ~ '\\n' }}"
               "{%- endfor -%}"
               "{%- if add_generation_prompt -%}{{ '<|assistant|>\\n' }}{%- endif -%}"},
    {"plain", "{%- for m in messages -%}"
              "{%- if m.role == 'user' -%}{{ 'User: ' ~ m.content ~ '\\n' }}"
              "{%- elif m.role == 'assistant' -%}{{ 'Assistant: ' ~ (m.content or '') ~ eos_token ~ '\\n' }}"
              "{%- else -%}{{ m.content ~ '\\n' }}{%- endif -%}"
              "{%- endfor -%}"
              "{%- if add_generation_prompt -%}{{ 'Assistant: ' }}{%- endif -%}"},
};
enum { template_count = sizeof templates / sizeof *templates };

const char *template_by_name(const char *name) {
    for (size_t i = 0; i < template_count; i++)
        if (!strcmp(templates[i].name, name)) return templates[i].source;
    return NULL;
}

const char *template_name_at(size_t index) { return index < template_count ? templates[index].name : NULL; }
