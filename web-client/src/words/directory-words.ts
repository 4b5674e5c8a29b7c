/** The words of the directory's pages, which are fetched with those pages and not before. */
import { usePreferences } from '../preferences/preferences';
import { directoryEn } from './directory-en';
import { directoryZh, type DirectoryWords } from './directory-zh';

export type { DirectoryWords } from './directory-zh';

export function useDirectoryWords(): DirectoryWords {
  return usePreferences().language === 'en' ? directoryEn : directoryZh;
}
