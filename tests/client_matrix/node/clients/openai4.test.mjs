import OpenAI from "openai4";
import { openaiChecks } from "./openai.mjs";

openaiChecks("openai4", OpenAI);
