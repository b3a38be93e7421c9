import OpenAI from "openai6";
import { openaiChecks } from "./openai.mjs";

openaiChecks("openai6", OpenAI);
