import OpenAI from "openai";
import { openaiChecks } from "./openai.mjs";

openaiChecks("openai", OpenAI);
