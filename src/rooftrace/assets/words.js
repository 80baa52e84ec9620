// Words that the pages share.

export const NO_ANSWER = "The server does not answer. Check your connection and try again in a few minutes; if that does not help, tell the person who runs the server.";

// The fields of the pages by the API's names of parameters.
const FIELDS = { bands: "the field “Bands”", gsd: "the field “Metres per pixel”", stretch: "the field “Values”", threshold: "“Threshold”" };

// Messages of the API name its parameters: `gsd=0.3`, or “the parameter gsd”.
export function inPageTerms(text) {
  return text
    .replace(/\b(bands|gsd|stretch|threshold)=([\w.,+-]*\w)/g, (_, name, value) => `${value} in ${FIELDS[name]}`)
    .replace(/\b([Tt])he parameter (bands|gsd|stretch|threshold)\b/g, (_, first, name) => (first === "T" ? FIELDS[name].replace(/^t/, "T") : FIELDS[name]));
}

export const sentence = (problem) => inPageTerms([problem.detail, problem.remedy].filter(Boolean).join(" "));
export const sentences = (notes) => notes.flatMap((text) => inPageTerms(text).split(/(?<=\.) (?=\p{Lu})/u));
